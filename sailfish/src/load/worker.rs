//! One load process: a fleet on an engine, its mail on stdin and stdout as JSON lines.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::RecvTimeoutError;
use engine::{Clock, Kind, Options, Remote, Running};
use loadgen::{Fleet, Mail, Plan, Word};
use sailfish_client::Address;
use serde::{Deserialize, Serialize};
use shard::ShardId;
use wire::DeviceClass;

use crate::cli::TrustArgs;
use crate::files::{Files, Reserved};
use crate::load::settings::{SURPLUS_CONNECTIONS, ports};
use crate::secret::Secret;
use crate::token;

/// The one shard of a load process.
const SHARD: ShardId = ShardId::new(0, 0);
/// How long a token of the load is good.
const TOKEN_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often the engine is checked while there are no reports.
const LOOK: Duration = Duration::from_millis(500);

/// The first line on stdin.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) plan: Plan,
    /// The secret that signs tokens.
    pub(super) secret: Vec<u8>,
    /// The clock of the whole run.
    pub(super) clock_offset_ns: u64,
    /// How connections to each target are made.
    pub(super) addresses: Vec<String>,
    pub(super) trust: TrustArgs,
    /// Whether a client that comes back has a shorter TLS handshake.
    pub(super) resumes: bool,
    /// The engine's name, or `auto`.
    pub(super) engine: String,
    pub(super) core: Option<usize>,
}

/// Runs `sailfish load-worker`, which `sailfish load` starts.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut first = String::new();
    io::stdin().read_line(&mut first)?;
    let order: Order = serde_json::from_str(&first).context("an order on stdin")?;
    let running = start(order)?;
    let remote = running.remote();
    std::thread::spawn(move || listen(&remote));
    speak(&running)?;
    Ok(ExitCode::SUCCESS)
}

fn start(order: Order) -> anyhow::Result<Running<Mail, Word>> {
    let kind: Kind = engine::choose(order.engine.parse().ok())?.kind;
    let wanted = order.plan.clients + SURPLUS_CONNECTIONS;
    let capacity = Files::raise().capacity(kind == Kind::Uring, 1, wanted, Reserved::default())?;
    let usual = Options::default();
    let options = Options {
        listen: Vec::new(),
        // A room writes to all of its members at once.
        recv_buffers: 1 << 10,
        recv_buffer_size_bytes: 4096,
        pin: Some(order.core.into_iter().collect()),
        connections_max: capacity.connections_max,
        open_connections_max: capacity.open_connections_max,
        clock: Clock::with_offset(order.clock_offset_ns),
        counts_stillness: true,
        ..usual
    };
    let secret = Secret { bytes: order.secret, file: None };
    let mint = move |app, user| token::mint(&secret, app, user, DeviceClass::Phone, TOKEN_TTL);
    let addresses = order.addresses.iter().map(|address| Address::parse(address, None));
    let addresses: Vec<_> = addresses.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let ports = ports(&addresses, &order.trust, order.resumes)?;
    let plan = order.plan;
    let build = move |_: ShardId| Fleet::new(plan, Box::new(mint)).by(ports);
    Ok(engine::start(kind, options, vec![(SHARD, build)])?)
}

/// Passes messages from stdin to the fleet. When stdin ends, its parent has ended, and so does this process.
fn listen(remote: &Remote<Mail>) {
    for line in io::stdin().lines().map_while(Result::ok) {
        if let Ok(mail) = serde_json::from_str(&line) {
            // A fleet gets a handful of messages; `speak` notices if it has stopped.
            let _ = remote.send(SHARD, mail);
        }
    }
    std::process::exit(1);
}

/// Writes the fleet's reports to stdout, up to the last one.
fn speak(running: &Running<Mail, Word>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    loop {
        match running.control().recv_timeout(LOOK) {
            Ok((_, word)) => {
                serde_json::to_writer(&mut stdout, &word)?;
                stdout.write_all(b"\n")?;
                stdout.flush()?;
                if matches!(word, Word::Done(_)) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) if running.is_alive() => {}
            Err(_) => anyhow::bail!("the engine has stopped"),
        }
    }
}
