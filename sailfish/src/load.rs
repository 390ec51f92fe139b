//! `sailfish load`: loads a gateway, from as many processes as that takes, and proves what became of every
//! message.

mod chaos;
mod cost;
mod gift;
mod run;
mod settings;
mod stopped;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use loadgen::Scenario;

use self::gift::Backend;
use self::run::Audit;

use crate::backend::Client;
use crate::cli::{ConfigArgs, TrustArgs};
use crate::config::LISTEN_DEFAULT;
use crate::secret::Secret;

pub use worker::run as run_worker;

/// Sends messages at a fixed rate, measures latency, and accounts for every message.
///
/// Operation i is due at i / rate, whatever the gateway does, and its latency counts from then (open loop).
/// The exit code is 1 if a message was lost, duplicated, out of order or refused, or if a connection failed.
/// With --chaos or --restart, a message whose receiver was away may be handed over as undelivered instead.
#[derive(clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to do.
    #[arg(value_enum)]
    scenario: Kind,
    /// The gateways, each HOST:PORT, tls://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT; several with commas,
    /// or repeated. Clients spread over them, and go on to the next when one fails.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = LISTEN_DEFAULT)]
    target: Vec<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Makes a full TLS handshake each time: a client that comes back shows no ticket.
    #[arg(long)]
    full_handshakes: bool,
    /// Clients, each with one connection.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u32,
    /// Operations a second, of all clients together [default: 1000; room: 10; gift: 100; storm: only with
    /// --restart].
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// The measured time; storm: how long everybody stays before the reset or the first --restart [default:
    /// 10; storm: 2].
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Splits the measured time at these seconds: the report has the latency of each part. Several with
    /// commas.
    #[arg(long, value_name = "S", value_delimiter = ',')]
    split: Vec<f64>,
    /// How long everybody stays after the reset, once all are back (storm).
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    stay: f64,
    /// Seconds of the same load before it, checked but not measured.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    warmup: f64,
    /// Bytes of a message's payload, at least 40.
    #[arg(long, value_name = "B", default_value_t = 200)]
    payload: u32,
    /// Load processes; more when the open-file limit requires it.
    #[arg(long, value_name = "P", default_value_t = 1)]
    processes: u32,
    /// Processes of the server, to tell what they use; several with commas.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rooms (room, gift): client i is in room i % ROOMS.
    #[arg(long, default_value_t = 1)]
    rooms: u32,
    /// The first room (room). For gifts, the backend opens rooms and names them.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    first_room: i64,
    /// Publishers in each room (room).
    #[arg(long, default_value_t = 1)]
    publishers: u32,
    /// Percent of the connections that stop reading once they are in their room (room).
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    stopped_readers: f64,
    /// The business code of messages [default: 6001; room: 5555; gift: 5560].
    #[arg(long)]
    biz_code: Option<i32>,
    /// The app of all users.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    app: i32,
    /// The first user; the others follow it.
    #[arg(long, default_value_t = 1_000_000, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    first_user: i64,
    /// Where the backend serves its API (gift).
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5348")]
    backend: String,
    /// The backend's internal secret (gift) [default: backend.internal_secret, or the one that the first run
    /// made].
    #[arg(long, value_name = "SECRET")]
    backend_secret: Option<String>,
    /// Coins that each client is given before the run (gift).
    #[arg(long, value_name = "COINS", default_value_t = 1_000_000)]
    coins: i64,
    /// How bodies are encoded.
    #[arg(long, value_enum, default_value_t = Encoding::Binary)]
    encoding: Encoding,
    /// Seconds between a client's heartbeats [default: what the server tells].
    #[arg(long, value_name = "S")]
    heartbeat: Option<f64>,
    /// New connections a second [default: as fast as they succeed].
    #[arg(long, value_name = "R")]
    connect_rate: Option<f64>,
    /// Connections on their way to a login at once, of all processes [default: 512; storm: 4096].
    #[arg(long, value_name = "N")]
    connect_window: Option<u32>,
    /// Seconds to wait at the end for what is still on its way [default: 15; with --chaos or --restart,
    /// --repeat more].
    #[arg(long, value_name = "S")]
    drain: Option<f64>,
    /// Seconds after which a client sends a message without a send-ack again, with the same client message
    /// id; 0 for never.
    #[arg(long, value_name = "S", default_value_t = 35.0)]
    repeat: f64,
    /// Runs `sh -c COMMAND` that many seconds after the first operation is due; may be repeated. What it
    /// prints goes to stderr.
    #[arg(long, value_name = "SECONDS:COMMAND", conflicts_with = "restart")]
    chaos: Vec<String>,
    /// Instead of the reset (storm): pairs chat, and `sh -c COMMAND` restarts a node; repeated, the next one
    /// once every client is back.
    #[arg(long, value_name = "COMMAND")]
    restart: Vec<String>,
    /// uring, monoio, epoll, glommio or auto, for the load's own connections.
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Cores to pin the load processes to, in turns; several with commas [default: none].
    #[arg(long, value_delimiter = ',')]
    core: Vec<usize>,
}

/// The kinds of load, as the command line has them.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Heartbeats only, at the period the server tells.
    Idle,
    /// Heartbeat round trips at a rate.
    Echo,
    /// Pairs of users that write to each other: reliable, acked.
    Chat,
    /// Rooms: few publish, every member gets everything.
    Room,
    /// Rooms whose members all send gifts to each other through the backend, and see all gift messages.
    Gift,
    /// All connect and log in; then all are reset and come back at once, or, with --restart, one node after
    /// the other restarts under load.
    Storm,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encoding {
    Binary,
    Json,
}

impl From<Kind> for Scenario {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Idle => Self::Idle,
            Kind::Echo => Self::Echo,
            Kind::Chat => Self::Chat,
            Kind::Room => Self::Room,
            Kind::Gift => Self::Gift,
            Kind::Storm => Self::Storm,
        }
    }
}

/// Runs `sailfish load`.
pub fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let mut settings = match settings::Settings::new(args) {
        Ok(settings) => settings,
        Err(wrong) => {
            crate::cli::complain(&format!("{wrong:#}"));
            return Ok(ExitCode::from(2));
        }
    };
    let config = args.config.load()?;
    let secret = Secret::find(&config.token)?;
    if args.scenario != Kind::Gift {
        return run::run(&settings, &secret, |_| Ok(Audit::default()));
    }
    crate::cli::warn_of_secret(
        "--backend-secret",
        args.backend_secret.as_ref(),
        "SAILFISH_BACKEND__INTERNAL_SECRET",
    );
    let backend = Backend(Client::new(&args.backend, args.backend_secret.as_deref(), &config)?);
    let stage = backend.prepare(&settings, args.coins)?;
    for plan in &mut settings.plans {
        (plan.gift, plan.first_room, plan.receiver) = (stage.gift, stage.first_room, Some(stage.receiver));
    }
    let before = backend.books()?;
    run::run(&settings, &secret, |tally| {
        let (after, refused) = (backend.books()?, tally.refused.values().sum());
        let (sums, faults) =
            (after.sums(&before, tally.accepted, refused), after.faults(&before, tally.accepted, refused));
        Ok(Audit { sums, faults })
    })
}
