//! The service that holds users and money, as a process of its own (`sailfish backend`) and within
//! `sailfish up`.

mod client;

pub use client::Client;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::http::StatusCode;
use backend::{App, Clock};
use gateway::TlsServer;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::certificates;
use crate::cli::{ConfigArgs, array};
use crate::config::{self, BridgeConfig, BridgeMode, Config, ConfigError, Layers};
use crate::database_lock::DatabaseLock;
use crate::file_watch::{self, FileWatch};
use crate::files::Files;
use crate::log;
use crate::ports::{Database, Wanted, check, listen_error};
use crate::secret::{Secret, private_folder, random, state_file};
use crate::signals::{Signals, Wish};

/// How long requests under way may take at the end.
const STOP_TIME: Duration = Duration::from_secs(10);

/// How long the start waits for a database, and how often it tries.
const DATABASE_TIME: Duration = Duration::from_secs(60);
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Runs the backend: users, tags, ids, gifts, wallet, payment, rooms, inbox.
#[derive(clap::Args)]
pub struct BackendArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the HTTP API is served: ADDRESS:PORT [default: 127.0.0.1:5348].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// sqlite:FILE or mysql://USER:PASSWORD@HOST:PORT/NAME [default: a SQLite file beside the token secret].
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Replicas of a MySQL database, for reads; several with commas.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    replicas: Vec<String>,
    /// redis://HOST:PORT, for cache and queue [default: cache in the process, queue in a table of the
    /// database].
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The push API: the admin port of a bridge, a gateway or `up` [default: http://127.0.0.1:5347].
    #[arg(long, value_name = "URL")]
    push_url: Option<String>,
    /// Prints every key with its present value and its meaning, and ends.
    #[arg(long)]
    print_config: bool,
}

impl BackendArgs {
    fn layers(&self) -> Result<Layers, ConfigError> {
        let replicas = array(&self.replicas);
        self.config.layers_with([
            ("--listen", "backend.listen", &self.listen),
            ("--database", "backend.database", &self.database),
            ("--replicas", "backend.replicas", &replicas),
            ("--redis", "backend.redis", &self.redis),
            ("--push-url", "backend.push_url", &self.push_url),
        ])
    }
}

/// Runs `sailfish backend` until a signal ends it.
pub fn run(args: &BackendArgs) -> anyhow::Result<ExitCode> {
    let config = args.layers()?.config()?;
    if args.print_config {
        crate::cli::print(&config::print(&config));
        return Ok(ExitCode::SUCCESS);
    }
    log::init(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::take(&runtime)?;
    let own = backend::Config { http: Files::raise().http(&config.http), ..own_config(&config)? };
    let database = Database { url: &own.database, chosen_by: "--database" };
    let lock = check(&[Wanted::one(own.listen, "--listen")], Some(database))?;
    let tls = config.backend.tls.then(|| certificates::server(&config)).transpose()?;
    let shown = tls.clone();
    let service = signals.unless_ended(&runtime, move || Service::start(own, shown, lock))?;
    let (address, scheme) = (service.address(), if tls.is_some() { "https" } else { "http" });
    let text = format!(
        "ready api={scheme}://{address}\n\n  docs      {scheme}://{address}/docs\n  database  {}\n\nCtrl-C or SIGTERM ends it.\n",
        service.database
    );
    let _ = crate::cli::write(&text); // a service needs no stdout
    runtime.block_on(async {
        let mut looks = tokio::time::interval(file_watch::LOOK);
        let mut watch = FileWatch::new(certificates::files(&config));
        loop {
            tokio::select! {
                biased; // orders before a look at files
                wish = signals.next() => match (wish, &tls) {
                    (Wish::End, _) => break,
                    (Wish::Reload, Some(tls)) => certificates::reload_and_tell(tls, &config),
                    (Wish::Reload, None) => {
                        warn!("SIGHUP changes nothing: a backend reads its configuration only at the start");
                    }
                },
                _ = looks.tick() => if let Some(tls) = &tls && watch.have_changed() {
                    certificates::reload_and_tell(tls, &config);
                }
            }
        }
    });
    service.stop();
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A backend on threads of its own.
pub struct Service {
    address: SocketAddr,
    /// The database, without its password.
    database: String,
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
    /// The lock of its SQLite file, for as long as it serves that.
    _lock: Option<DatabaseLock>,
}

impl Service {
    /// Opens everything, and serves the API.
    ///
    /// # Errors
    /// One line that says what to do: the address is taken, or the database does not open.
    fn start(
        own: backend::Config,
        tls: Option<TlsServer>,
        lock: Option<DatabaseLock>,
    ) -> anyhow::Result<Self> {
        let listener = http_server::listen(own.listen)
            .map_err(|error| listen_error(error, own.listen, "--set backend.listen="))?;
        if own.mock && !own.listen.ip().is_loopback() {
            warn!(
                "backend.mock is on, and others may reach {}: a reader of its /mock pages can log in as any user and pay nothing",
                own.listen
            );
        }
        let database = config::without_password(&own.database);
        let (started, starting) = mpsc::channel();
        let (stop, stopping) = oneshot::channel();
        let thread = std::thread::Builder::new().name("backend".into()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("backend").build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(anyhow::Error::from(error)))),
            };
            runtime.block_on(async {
                let backend = match open(own, listener, tls).await {
                    Ok(backend) => backend,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _ = started.send(Ok(backend.address())); // the waiter has gone with the process
                let _ = stopping.await; // a sender that is gone means the same
                backend.stop(STOP_TIME).await;
            });
        })?;
        let opened = starting.recv().context("the backend's thread ended")?;
        let address = opened.with_context(|| format!("the backend with {database}"))?;
        Ok(Self { address, database, stop: Some(stop), thread, _lock: lock })
    }

    /// The backend of `up`, which pushes to the admin port of `up`; `http` has the limits of its own port,
    /// and `tls` that port's certificates. Both speak plain HTTP with each other, on loopback.
    pub fn within(
        config: &Config,
        (http, tls): (http_server::Limits, Option<TlsServer>),
        admin: SocketAddr,
        lock: Option<DatabaseLock>,
    ) -> anyhow::Result<Self> {
        let mut own = own_config(config)?;
        own.http = http;
        own.push_url = format!("http://{admin}");
        if own.im_address == backend::Config::default().im_address {
            own.im_address = config.node.listen.to_string();
        }
        if own.im_websocket.is_empty() {
            let by_tls = config.node.listen_wss().map(|address| format!("wss://{address}"));
            let in_clear = || config.node.listen_ws(true).map(|address| format!("ws://{address}"));
            own.im_websocket = by_tls.or_else(in_clear).unwrap_or_default();
        }
        let tls = tls.filter(|_| own.tls);
        Self::start(own, tls, lock)
    }

    /// The settings of the bridge beside it.
    pub fn bridge(&self, config: &BridgeConfig) -> BridgeConfig {
        config.to(self.address)
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests under way finish, and ends it.
    pub fn stop(mut self) {
        drop(self.stop.take());
        if self.thread.join().is_err() {
            warn!("the backend's thread panicked");
        }
    }
}

/// Opens the backend, and waits for a database that is just starting.
async fn open(
    config: backend::Config,
    listener: TcpListener,
    tls: Option<TlsServer>,
) -> anyhow::Result<backend::Backend> {
    let deadline = Instant::now() + DATABASE_TIME;
    let mut said = String::new();
    let app = loop {
        match App::open(config.clone(), Clock::default()).await {
            Err(error) if error.status == StatusCode::SERVICE_UNAVAILABLE && Instant::now() < deadline => {
                // A line for each reason, not for each try.
                let reason = error.to_string();
                if reason != said {
                    let (database, seconds) =
                        (config::without_password(&config.database), DATABASE_TIME.as_secs());
                    warn!(error = reason, "waiting for the database {database}, up to {seconds} s");
                    said = reason;
                }
                tokio::time::sleep(DATABASE_PAUSE).await;
            }
            opened => break opened?,
        }
    };
    Ok(backend::Backend::start_with(app, listener, tls)?)
}

/// The secret of callers of `/internal/`: as configured, or as the first run on this machine made it.
fn internal_secret(config: &Config) -> anyhow::Result<String> {
    String::from_utf8(Secret::of_internal(&config.backend.internal_secret)?.bytes)
        .context("backend.internal_secret: want text")
}

fn random_text() -> String {
    random::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The backend's part of the configuration, with what it shares with gateways and bridge.
pub fn own_config(config: &Config) -> anyhow::Result<backend::Config> {
    let mut own = config.backend.clone();
    own.trace = config.trace.clone();
    if own.database.is_empty() {
        let file = state_file("backend.db").context("set backend.database")?;
        private_folder(file.parent().expect("it has a folder"))?;
        own.database = format!("sqlite:{}", file.display());
    }
    own.internal_secret = internal_secret(config)?;
    own.bridge_streams = if config.bridge.mode == BridgeMode::Redis { config.bridge.lanes } else { 0 };
    if own.mock && own.provider_secret.is_empty() {
        own.provider_secret = random_text(); // the mock provider is in the same process
    }
    own.im_secret = Secret::find(&config.token)?.bytes;
    own.im_audience = config.token.audiences.first().cloned().unwrap_or_default();
    own.im_issuer = config.token.issuers.first().cloned().unwrap_or_default();
    own.push_secret = config.control.secret.clone();
    own.bridge_secret =
        String::from_utf8(Secret::of_bridge(&config.bridge)?.bytes).context("bridge.secret: want text")?;
    Ok(own)
}
