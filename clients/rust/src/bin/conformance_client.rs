//! The program that the conformance suite plays its scenarios against: see `clients/README.md`.
#![allow(clippy::disallowed_methods)] // a program waits for its stdin

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

use sailfish_client::{
    Config, Event, Message, Outcome, Outgoing, Recovery, Refused, RoomId, UserId, Want, start,
};
use serde_json::{Value, json};

/// What the runner asks for.
struct Arguments {
    config: Config,
    tokens: VecDeque<String>,
    rooms: Vec<RoomId>,
    want: Option<Want>,
    send: u32,
    to: Option<UserId>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { config, mut tokens, rooms, want, send, to } = arguments();
    let provider = move || {
        let token = if tokens.len() > 1 { tokens.pop_front() } else { tokens.front().cloned() };
        async { token }
    };
    let (client, mut events) = start(config, provider);
    rooms.iter().for_each(|room| client.join(*room, want));
    for number in 1..=send {
        let (name, text) = (format!("m{number}"), format!("hello {number}"));
        let message = match (to, rooms.first()) {
            (Some(user), _) => Outgoing::to_user(user, text),
            (None, Some(room)) => Outgoing::to_room(*room, text),
            (None, None) => fail("--send wants --to or --room"),
        };
        if let Err(Refused::Full) = client.send(message.named(&name)) {
            print(&json!({"event": "refused", "client_msg_id": name}));
        }
    }
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new()); // however it ends, it has ended
        client.log_out();
    });
    while let Some(event) = events.next().await {
        print(&line(event));
    }
    std::process::exit(0); // without waiting for stdin
}

fn line(event: Event) -> Value {
    match event {
        Event::LoggedIn { .. } => json!({"event": "logged_in"}),
        Event::Joined { room, sequence, recovery } => {
            let recovery = recovery.map(|recovery| match recovery {
                Recovery::Complete => "complete",
                Recovery::TooOld => "too_old",
            });
            json!({"event": "joined", "room": room.0, "sequence": sequence, "recovery": recovery})
        }
        Event::Left { room } => json!({"event": "left", "room": room.0}),
        Event::Message(message) => line_of_message(&message),
        Event::Outcome { client_msg_id, outcome, .. } => {
            let mut line =
                json!({"event": "outcome", "client_msg_id": client_msg_id, "outcome": outcome.name()});
            match outcome {
                Outcome::Sequenced { sequence } => line["sequence"] = sequence.into(),
                Outcome::Failed(reason) => line["reason"] = reason.name().into(),
                Outcome::Delivered | Outcome::Stored | Outcome::Answered => {}
            }
            line
        }
        Event::Notice { code, .. } => json!({"event": "notice", "name": code.name()}),
        Event::Disconnected { why, wait, .. } => {
            json!({"event": "disconnected", "why": format!("{why:?}"), "wait_ms": wait.as_millis() as u64})
        }
        Event::Ended(end) => json!({"event": "ended", "reason": end.name()}),
    }
}

fn line_of_message(message: &Message) -> Value {
    json!({
        "event": "message",
        "id": message.id.0.to_string(),
        "sender": message.sender.0,
        "biz_code": message.biz_code.0,
        "client_msg_id": message.client_msg_id.as_str(),
        "room": message.room.map(|room| room.0),
        "sequence": message.room.map(|_| message.sequence),
        "data": String::from_utf8_lossy(&message.payload),
    })
}

fn print(line: &Value) {
    let mut stdout = std::io::stdout();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if written.is_err() {
        std::process::exit(1);
    }
}

fn arguments() -> Arguments {
    let mut asked = Arguments {
        config: Config::new(""),
        tokens: VecDeque::new(),
        rooms: Vec::new(),
        want: None,
        send: 0,
        to: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let Some(value) = words.next() else { fail(&format!("{name} wants a value")) };
        let ms = |value: &str| Duration::from_millis(number(value) as u64);
        match name.as_str() {
            "--tcp" | "--ws" => asked.config.address = value,
            "--scenario" => {}
            "--json" => asked.config.encoding = sailfish_client::Encoding::Json,
            "--token" => asked.tokens.push_back(value),
            "--room" => asked.rooms.push(RoomId(number(&value))),
            "--last" => asked.want = Some(Want::Last(number(&value) as u64)),
            "--send" => asked.send = number(&value) as u32,
            "--to" => asked.to = Some(UserId(number(&value))),
            "--store" => asked.config.store_messages_max = number(&value) as usize,
            "--repeat-ms" => asked.config.repeat_after = ms(&value),
            "--busy-ms" => asked.config.busy_after = ms(&value),
            "--backoff-ms" => asked.config.backoff = ms(&value),
            _ => fail(&format!("{name} is no argument")),
        }
    }
    asked
}

fn number(value: &str) -> i64 {
    value.parse().unwrap_or_else(|_| fail(&format!("{value} is no number")))
}

fn fail(why: &str) -> ! {
    eprintln!("conformance-client: {why}");
    std::process::exit(2)
}
