//! A session: login, messages, frames in pieces, heartbeats, logout.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::client::{FailReason, Message, NoticeCode, Outcome, ServerFrame};

use crate::connection::{PATIENCE, Said, deliver, direct, in_room, logged_in, pause, send_ack};
use crate::play::Play;
use crate::{Verdict, ensure};

const HEARTBEAT: Duration = Duration::from_millis(400);

pub fn login(play: &mut Play) -> Verdict {
    let mut connection = play.accept()?;
    let token = connection.login_token()?;
    ensure!(token == play.token(0)?, "the login's token is {token:?}, and not the one that was given");
    connection.send(&[logged_in(30_000)]);
    play.program.event("logged_in", PATIENCE, |_| true)?;
    connection.hear_none("further frame", Duration::from_millis(300), |_| true)
}

pub fn logout(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    play.program.end_stdin();
    connection.hear("a logout", PATIENCE, |said| (*said == Said::Logout).then_some(()))?;
    connection.send(&[ServerFrame::LoggedOut]);
    connection.end();
    play.program.event("ended", PATIENCE, |event| event["reason"] == "logout")?;
    play.program.ends(PATIENCE)?;
    play.nobody_comes(Duration::from_millis(300))
}

pub fn send(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    for number in 1..=6 {
        let said = Said::Send {
            id: format!("m{number}"),
            biz_code: 6_001,
            target: 2,
            data: format!("hello {number}"),
        };
        let sent = |other: &Said| matches!(other, Said::Send { .. }).then(|| other.clone());
        let (_, sent) = connection.hear(&format!("the message m{number}"), PATIENCE, sent)?;
        ensure!(sent == said, "wanted {said:?}, but {sent:?} came");
    }
    let outcomes = [
        ("m2", Outcome::Stored),
        ("m1", Outcome::Delivered),
        ("m3", Outcome::Answered),
        ("m5", Outcome::Sequenced { sequence: 9 }),
        ("m4", Outcome::Failed(FailReason::Offline)),
        ("m6", Outcome::Failed(FailReason::TooLong)),
    ];
    connection.send(&outcomes.map(|(id, outcome)| send_ack(id, outcome)));
    for (id, outcome) in outcomes {
        let event = play.outcome(id, outcome.name())?;
        match outcome {
            Outcome::Failed(reason) => {
                ensure!(
                    event["reason"] == reason.name(),
                    "wanted the reason {}, printed was {event}",
                    reason.name()
                );
            }
            Outcome::Sequenced { sequence } => {
                ensure!(event["sequence"] == sequence, "wanted the sequence {sequence}, printed was {event}");
            }
            Outcome::Delivered | Outcome::Stored | Outcome::Answered => {}
        }
    }
    connection.hear_none("repeat", Duration::from_millis(300), |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(6)
}

pub fn cut(play: &mut Play) -> Verdict {
    let mut connection = play.accept()?;
    connection.login_token()?;
    connection.send_bytewise(&[logged_in(30_000)], usize::MAX);
    play.program.event("logged_in", PATIENCE, |_| true)?;
    let frames = |round: u64| {
        let notice = ServerFrame::Notice {
            code: NoticeCode::Busy,
            text: "später".into(),
            retry_after_ms: 0,
            alternatives: Vec::new(),
        };
        let message = direct(1_000 + round, &format!("c{round}"), &format!("é✓😀 {round}"));
        let lossy = Message { ack_wanted: false, ..message };
        [deliver(lossy), send_ack("nobody", Outcome::Delivered), notice]
    };
    let mut texts = Vec::new();
    let mut round = 0;
    while connection.send_cut(&frames(round), 1 + round as usize) {
        texts.push(format!("é✓😀 {round}"));
        round += 1;
    }
    texts.push(format!("é✓😀 {round}"));
    connection.send_bytewise(&frames(round + 1), 7);
    texts.push(format!("é✓😀 {}", round + 1));

    let merged: Vec<_> =
        (0..200).map(|at| deliver(in_room(7, 100 + at, 5_000 + at, &format!("merged {at}")))).collect();
    connection.send(&merged);
    texts.extend((0..200).map(|at| format!("merged {at}")));
    let no_text = Message { payload: Bytes::from_static(&[b'a', 0xff, b'b']), ..direct(9_000, "b1", "") };
    let empty = direct(9_001, "b2", "");
    connection.send(&[deliver(no_text), deliver(empty)]);
    texts.extend(["a\u{fffd}b".to_owned(), String::new()]);

    play.program.event("message", 2 * PATIENCE, |event| event["id"] == "9001")?;
    play.program.event("notice", PATIENCE, |event| event["name"] == "busy")?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    play.all_messages(&texts)?;
    play.all_outcomes(0)
}

pub fn heartbeat(play: &mut Play) -> Verdict {
    let mut connection = play.accept()?;
    connection.login_token()?;
    let start = Instant::now();
    connection.send(&[logged_in(HEARTBEAT.as_millis() as u32)]);
    let is_heartbeat = |said: &Said| matches!(said, Said::Heartbeat(_)).then_some(());
    for number in 1..=5 {
        connection.answers_heartbeats = number < 5;
        let (at, ()) = connection.hear("a heartbeat", PATIENCE, is_heartbeat)?;
        is_in_time("a heartbeat", number, at - start)?;
    }
    // The last one has no answer, and the connection stays.
    let mut next = play.accept_within(PATIENCE)?;
    is_in_time("the reconnect after a heartbeat without an answer", 6, next.at - start)?;
    next.login()?;
    connection.hear_end("a heartbeat was not answered", PATIENCE)?;
    pause(Duration::from_millis(50));
    Ok(())
}

/// Judges what is to come so many heartbeat periods after the login, by times from the login on: a machine
/// that stands still for a moment makes a period look longer and the next one shorter.
fn is_in_time(what: &str, periods: u32, after: Duration) -> Verdict {
    ensure!(
        after >= HEARTBEAT * periods * 3 / 4,
        "{what} comes {} ms after the login: too soon, as the period is 400 ms and it is the {periods}th",
        after.as_millis()
    );
    ensure!(
        after < HEARTBEAT * periods + PATIENCE,
        "{what} comes {} ms after the login: too late, as the period is 400 ms and it is the {periods}th",
        after.as_millis()
    );
    Ok(())
}
