//! `sailfish chat`: a small terminal client, to try a gateway by hand or from a script.
//!
//! It does what a real client has to: heartbeats, acks, and every message of its own kept until the send-ack comes, and
//! repeated after a reconnect with the same client message id.

mod client;
mod link;
mod outgoing;

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use wire::client::{Encoding, ServerFrame};
use wire::{AppId, DeviceClass, RoomId, UserId};

use crate::cli::ConfigArgs;
use crate::secret::Secret;
use client::{Client, Identity};

/// How long a token of our own is good; it is made anew for each run.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A small terminal client. Lines go to --to or --room; with stdin from a pipe it sends, waits for the outcome and ends.
#[derive(clap::Args)]
pub struct ChatArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The app of the user.
    #[arg(long, default_value_t = 1)]
    app: i32,
    /// Who you are.
    #[arg(long, allow_negative_numbers = true)]
    user: i64,
    /// A room to join; lines go there unless --to is given.
    #[arg(long, allow_negative_numbers = true)]
    room: Option<i64>,
    /// A user to write to.
    #[arg(long, allow_negative_numbers = true)]
    to: Option<i64>,
    /// The gateway: HOST:PORT [default: where the configuration says that it listens].
    #[arg(long, value_name = "HOST:PORT")]
    target: Option<String>,
    /// phone, tablet, web, desktop, tv or bot.
    #[arg(long, default_value = "phone", value_parser = crate::token::device)]
    device: DeviceClass,
    /// A login token [default: one signed with the secret of `sailfish up`].
    #[arg(long)]
    token: Option<String>,
    /// How bodies are encoded: binary, or the JSON of the Java platform.
    #[arg(long, default_value = "binary", value_parser = encoding)]
    encoding: Encoding,
}

/// What reaches the client.
enum Input {
    /// A line of stdin.
    Line(String),
    /// The end of stdin.
    End,
    /// A frame from connection number `.0`.
    Frame(u64, ServerFrame<'static>),
    /// Connection number `.0` is gone, and why.
    Lost(u64, String),
}

/// Runs `sailfish chat`; the code is 1 when something failed.
pub fn run(args: &ChatArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let app = AppId(args.app);
    let user = UserId(args.user);
    let token = match &args.token {
        Some(token) => token.clone(),
        None => crate::token::mint(&Secret::find(&config.token)?, app, user, args.device, TOKEN_TTL),
    };
    let target = args.target.clone();
    let target = target.unwrap_or_else(|| crate::serve::reachable(config.node.listen).to_string());
    let identity = Identity { app, user, token, target, encoding: args.encoding };
    let (inputs, received) = mpsc::channel();
    let client = Client::new(identity, args.room.map(RoomId), args.to.map(UserId), inputs.clone());
    read_stdin(inputs);
    if io::stdin().is_terminal() {
        say("/to USER and /room ROOM say where lines go, /quit ends once all have their outcome");
    }
    Ok(if client.run(&received) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_stdin(inputs: Sender<Input>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if inputs.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = inputs.send(Input::End); // the client may be gone
    });
}

/// One line to the user.
fn say(line: &str) {
    crate::cli::print(&format!("{line}\n"));
}

fn encoding(name: &str) -> Result<Encoding, String> {
    match name {
        "binary" => Ok(Encoding::Binary),
        "json" => Ok(Encoding::Json),
        _ => Err("want binary or json".into()),
    }
}
