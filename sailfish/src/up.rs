//! `sailfish up`: the whole gateway on one machine.

mod ready;
mod run;

pub use ready::reachable;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::{Chosen, Options, Running};
use gateway::{Gateway, Setup};
use router::Router;
use shard::ShardId;
use wire::node::Owners;

use crate::cli::ConfigArgs;
use crate::config::{self, Config, ConfigError, Layers};
use crate::control::Shards;
use crate::files::{Files, REFUSALS_PER_SHARD};
use crate::node::{Mail, Node};
use crate::secret::{self, Secret};

/// Runs the whole gateway on this machine, with defaults for everything.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where clients connect: ADDRESS:PORT [default: 127.0.0.1:5346].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where metrics and health are served: ADDRESS:PORT [default: 127.0.0.1:5347].
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,
    /// Threads that hold connections [default: one for each core].
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// uring, monoio, epoll, glommio or auto [default: auto].
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Prints the configuration in force, every key with its meaning, and ends.
    #[arg(long)]
    print_config: bool,
}

impl UpArgs {
    fn layers(&self) -> Result<Layers, ConfigError> {
        let mut layers = self.config.layers()?;
        for (flag, key, value) in [
            ("--listen", "node.listen", &self.listen),
            ("--admin", "node.admin", &self.admin),
            ("--shards", "node.shards", &self.shards),
            ("--engine", "node.engine", &self.engine),
        ] {
            if let Some(value) = value {
                layers.text(key, value, flag)?;
            }
        }
        Ok(layers)
    }
}

/// Runs `sailfish up` until it is told to go.
pub fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let started = std::time::Instant::now();
    let layers = args.layers()?;
    let config = layers.config()?;
    if args.print_config {
        crate::cli::print(&config::print(&config));
        return Ok(ExitCode::SUCCESS);
    }
    init_log(&config);
    let secret = Secret::find(&config.token)?;
    let admin = admin_listener(config.node.admin)?;
    let up = start(&config, &secret)?;
    let address = up.running.address().context("an engine that listens knows where")?;
    let summary = ready::Summary {
        clients: address,
        admin: admin.local_addr()?,
        chosen: up.chosen.clone(),
        shards: up.shards.ids().len(),
        files: up.files,
        connections_max: up.connections_max,
        connections_max_configured: config.limits.connections_max,
        started,
    };
    let hint = ready::Hint::new(&args.config, &layers, &secret, address);
    let announce = || {
        summary.log();
        let _ = crate::cli::write(&format!("{summary}{hint}")); // a node serves without a stdout too
    };
    run::until_stopped(up, admin, config, announce, || args.layers()?.config())
}

/// The node at work.
struct Up {
    running: Running<Mail>,
    shards: Arc<Shards>,
    chosen: Chosen,
    files: Files,
    /// Of one shard: what is configured, or what the open files allow.
    connections_max: u32,
}

fn start(config: &Config, secret: &Secret) -> anyhow::Result<Up> {
    let keys = secret.keys(&config.token)?;
    let requested = config.node.engine.parse().ok(); // `auto` is no kind
    let chosen = engine::choose(requested)?;
    let count = match config.node.shards {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(1024) as u16),
        count => count,
    };
    let files = Files::raise();
    let connections_max = files.connections_max(count)?.min(config.limits.connections_max);
    let ids: Vec<ShardId> = (0..count).map(|index| ShardId::new(0, index)).collect();
    let owners = Owners::new(ids.iter().map(|id| id.as_u32()).collect());
    let options = engine_options(config, connections_max);
    let clock = options.clock;
    let build = |id: ShardId| {
        let setup = Setup {
            owners: owners.clone(),
            keys: keys.clone(),
            config: bounded(config.gateway(), connections_max),
            seed: u64::from_ne_bytes(secret::random()),
        };
        let seed = u64::from_ne_bytes(secret::random());
        let router = router::Config { number: id.index(), seed, limits: config.router.clone() };
        (id, move |id| Node::new(id, Gateway::new(clock.now(), setup), Router::new(router)))
    };
    let shards = ids.iter().copied().map(build).collect();
    let running = engine::start(chosen.kind, options, shards)
        .map_err(|error| listen_error(error, config.node.listen, "--listen"))?;
    let shards = Shards::new(ids, &running, owners);
    Ok(Up { running, shards, chosen, files, connections_max })
}

/// The gateway's part of a configuration, with no more connections than the open files allow.
fn bounded(mut gateway: gateway::Config, connections_max: u32) -> gateway::Config {
    gateway.limits.connections_max = gateway.limits.connections_max.min(connections_max);
    gateway
}

fn engine_options(config: &Config, connections_max: u32) -> Options {
    let engine = &config.engine;
    let unless_zero = |bytes: u32| (bytes > 0).then_some(bytes);
    Options {
        listen: Some(config.node.listen),
        pin: if config.node.pin { None } else { Some(Vec::new()) },
        // Those past the gateway's limit are told so before they are closed.
        connections_max: connections_max.saturating_add(REFUSALS_PER_SHARD),
        linger: Duration::from_millis(engine.linger_ms.into()),
        send_buffer_bytes: unless_zero(engine.send_buffer_bytes),
        recv_buffer_bytes: unless_zero(engine.recv_buffer_bytes),
        recv_buffers: engine.recv_buffers,
        recv_buffer_size_bytes: engine.recv_buffer_size_bytes,
        backlog: engine.backlog,
        ..Options::default()
    }
}

fn admin_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| listen_error(error, address, "--admin"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// One line that says what to do.
fn listen_error(error: io::Error, address: SocketAddr, flag: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: another program listens there, perhaps another sailfish; stop it, or choose another \
             address with {flag} ADDRESS:PORT"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "{address}: no permission to listen there; choose a port from 1024 on with {flag}"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!(
                "{address} is no address of this machine; choose another with {flag} ADDRESS:PORT"
            )
        }
        _ => error.into(),
    }
}

fn init_log(config: &Config) {
    let filter: tracing_subscriber::EnvFilter = config.log.filter.parse().expect("the config was validated");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log.format.as_str() {
        "json" => builder.json().init(),
        _ => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
    }
}
