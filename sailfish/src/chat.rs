//! `sailfish chat`: a small terminal client, to try a gateway by hand or from a script.
//!
//! The crate `sailfish-client` does what every client must do (heartbeats, acks, reconnects, repeats), on a
//! thread of its own; here are the screen and its texts.

mod client;
mod screen;

use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use sailfish_client::{Address, Client, Config, Event, Events};
use tokio::runtime::Builder;
use wire::client::Encoding;
use wire::{AppId, BizCode, DeviceClass, RoomId, UserId};

use crate::cli::{ConfigArgs, TrustArgs};
use crate::config::ConfigError;
use crate::secret::Secret;
use client::{Chat, Identity, Inputs, WANTED};
use screen::{Screen, Tone};

/// How long a token of our own is good; it is made anew for each run.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The environment variable for a token, which other users cannot see.
const TOKEN_VARIABLE: &str = "SAILFISH_CHAT_TOKEN";
/// A message without an outcome is repeated after this long: a person watches.
const REPEAT_AFTER: Duration = Duration::from_secs(15);

/// How long a connect with its login may take: longer than the gateway waits with its answer to a login
/// (`limits.login_deadline_ms`), so that its reason arrives.
const LOGIN_TIME: Duration = Duration::from_secs(12);

/// Lines, and events, that wait for the chat at most. Then neither stdin nor the server is read.
const INPUTS_MAX: usize = 64;
/// How soon an event that found no room is offered again.
const RETRY: Duration = Duration::from_millis(20);

/// A small terminal client. Lines go to --to or --room; with stdin from a pipe it sends, waits for the
/// outcome and ends.
///
/// It ends with 0 when every line has its outcome, with 1 when one failed, was no text or has none in time,
/// or the gateway does not answer the login, and with 2 when no gateway of Sailfish is at --target.
#[derive(clap::Args)]
pub struct ChatArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The app of the user.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    app: i32,
    /// Who you are.
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    user: i64,
    /// A room to join; lines go there unless --to is given.
    #[arg(long, allow_negative_numbers = true)]
    room: Option<i64>,
    /// A user to write to.
    #[arg(long, allow_negative_numbers = true)]
    to: Option<i64>,
    /// What lines are about [default: 5555 to a room, 6001 to a user]; 5560 sends gifts. Lossy messages to a
    /// user have no outcome.
    #[arg(long, value_name = "CODE", allow_negative_numbers = true)]
    biz_code: Option<i32>,
    /// The gateway: HOST:PORT, tls://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT [default: where the
    /// configuration says that it listens].
    #[arg(long, value_name = "ADDRESS")]
    target: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// phone, tablet, web, desktop, tv or bot.
    #[arg(long, default_value = "phone", value_parser = crate::token::device)]
    device: DeviceClass,
    /// A login token [default: SAILFISH_CHAT_TOKEN in the environment, or one signed with the secret of
    /// `sailfish up`].
    #[arg(long)]
    token: Option<String>,
    /// How bodies are encoded: binary, or the JSON of the Java platform.
    #[arg(long, default_value = "binary", value_parser = encoding)]
    encoding: Encoding,
}

/// The inputs of the client.
enum Input {
    /// A line of stdin.
    Line(String),
    /// Line number `.0` of stdin, which is no UTF-8.
    NoText(u64),
    /// Line number `.0` of stdin, which is longer than any message.
    TooLong(u64),
    /// The end of stdin.
    End,
    /// Stdin cannot be read any more, and why.
    Broken(String),
    /// What happened to the client.
    Event(Event),
}

/// Runs `sailfish chat`; the code is 1 when something failed.
///
/// # Errors
/// A configuration that is wrong, a `--target` without a gateway among it.
pub fn run(args: &ChatArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let app = AppId(args.app);
    let user = UserId(args.user);
    crate::cli::warn_of_secret("--token", args.token.as_ref(), TOKEN_VARIABLE);
    let flag = args.token.clone().map(|token| (token, "--token"));
    let token = match flag.or_else(|| Some((std::env::var(TOKEN_VARIABLE).ok()?, TOKEN_VARIABLE))) {
        Some((token, source)) => {
            crate::token::is_of(&token, user, source)?;
            token
        }
        None => crate::token::mint(&Secret::find(&config.token)?, app, user, args.device, TOKEN_TTL),
    };
    let target = args.target.clone();
    let target = target.unwrap_or_else(|| crate::serve::reachable(config.node.listen).to_string());
    check_target(&target)?;
    let biz_code = args.biz_code.map(BizCode);
    let identity = Identity { user, target: target.clone(), biz_code };
    let (into_lines, lines) = bounded(INPUTS_MAX);
    let (into_events, events) = bounded(INPUTS_MAX);
    let mut screen = Screen::open(into_lines);
    if let Screen::Terminal(_) = screen {
        screen.say(Tone::Quiet, "/to USER, /room ROOM: where lines go. /quit: ends after all outcomes");
    }
    let config = Config {
        encoding: args.encoding,
        trust: args.trust.trust()?,
        app,
        user,
        repeat_after: REPEAT_AFTER,
        login_time: LOGIN_TIME,
        // A file may be piped in, with lines of any length: the server reports what is wrong with them.
        store_messages_max: usize::MAX,
        store_bytes_max: usize::MAX,
        payload_bytes_max: usize::MAX,
        ..Config::new(target)
    };
    let client = start(config, token, into_events)?;
    let chat = Chat::new(identity, args.room.map(RoomId), args.to.map(UserId), client, screen);
    Ok(if chat.run(&Inputs { lines, events })? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A target in another form is wrong, and waiting does not help.
fn check_target(target: &str) -> Result<(), ConfigError> {
    let address = Address::parse(target, None).map_err(|wish| ConfigError(format!("--target {wish}")))?;
    let port = address.authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(ConfigError(format!("--target {target}: no port; {WANTED}, like 127.0.0.1:5346"))),
    }
}

/// Starts the client on a thread of its own; its events come as inputs.
fn start(config: Config, token: String, inputs: Sender<Input>) -> anyhow::Result<Client> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let (client, events) = sailfish_client::start(config, token);
    drop(context);
    std::thread::spawn(move || runtime.block_on(hand_over(events, inputs)));
    Ok(client)
}

async fn hand_over(mut events: Events, inputs: Sender<Input>) {
    while let Some(event) = events.next().await {
        let mut input = Input::Event(event);
        // A full screen must not block this thread: heartbeats go on, and the client reads no further.
        while let Err(refused) = inputs.try_send(input) {
            let TrySendError::Full(again) = refused else { return }; // the chat has ended
            tokio::time::sleep(RETRY).await;
            input = again;
        }
    }
}

fn encoding(name: &str) -> Result<Encoding, String> {
    match name {
        "binary" => Ok(Encoding::Binary),
        "json" => Ok(Encoding::Json),
        _ => Err("want binary or json".into()),
    }
}
