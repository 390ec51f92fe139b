//! The control thread: the admin port, the signals, and the end.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gateway::TokenError;
use node::Control;
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use super::{Serving, bounded, watch};
use crate::admin::{self, Admin};
use crate::backend::Service;
use crate::bridge::Bridging;
use crate::certificates;
use crate::config::{Config, ConfigError, NodeConfig};
use crate::control::Shards;
use crate::directory::Directory;
use crate::file_watch::{self, FileWatch};
use crate::keys;
use crate::role::Role;
use crate::signals::{Signals, Wish};

/// How often the threads of shards and bridge are checked.
const WATCH: Duration = Duration::from_millis(250);
/// How often a bridge that must end is checked.
const BRIDGE_WATCH: Duration = Duration::from_millis(10);
/// How long the shards may take to close everything and end.
const STOP_TIME: Duration = Duration::from_secs(2);
/// How much longer than the cores' own deadline a drain is waited for.
const DRAIN_SLACK: Duration = Duration::from_millis(500);

/// Serves the admin port until a signal ends the node, or a shard fails. Calls `announce` once it serves.
pub fn until_stopped(
    runtime: Runtime,
    mut signals: Signals,
    mut serving: Serving,
    admin: TcpListener,
    config: Config,
    announce: impl FnOnce(),
    reread: impl Fn() -> Result<Config, ConfigError>,
) -> anyhow::Result<ExitCode> {
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(admin)?;
        let admin = Arc::new(Admin {
            shards: serving.shards.clone(),
            directory: serving.directory.as_ref().map(Directory::stats),
            streams: serving.streams.take(),
            keeps: admin::Keeps::new(config.all_keeps()),
            bridge: serving.bridge.as_ref().map(Bridging::metrics),
            secret: config.control.secret.clone(),
            http: http_server::Server::new(serving.http.clone(), |_| None),
            page: serving.backend.as_ref().map(Service::address),
            keys: serving.keys.clone(),
            seen: Default::default(),
        });
        tokio::spawn(admin::watch_nodes(admin.clone()));
        let tls = serving.tls.clone().filter(|_| config.node.admin_tls);
        tokio::spawn(admin::serve(listener, tls, admin));
        tokio::spawn(watch::links(serving.shards.clone()));
        tokio::spawn(watch::clients(serving.shards.clone()));
        tokio::spawn(keys::follow(serving.keys.clone(), serving.shards.clone()));
        if serving.shards.role() == Role::Up {
            admin::owners_known(&serving.shards).await; // print "ready" when a push finds its user
        }
        let ended = control(&mut serving, config, &mut signals, reread, announce).await;
        serving.shards.order(|| Control::Stop).await;
        ended
    });
    runtime.shutdown_background(); // a backend that is to stop at once is not waited for
    let (directory, bridge) = (serving.directory.take(), serving.bridge.take());
    let backend = serving.backend.take();
    join(serving)?;
    if let Some(bridge) = bridge {
        bridge.end();
    }
    if let Some(backend) = backend {
        backend.stop();
    }
    if let Some(directory) = directory {
        directory.stop();
    }
    ended?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits for the signals; returns when it is time to stop.
async fn control(
    serving: &mut Serving,
    mut config: Config,
    signals: &mut Signals,
    reread: impl Fn() -> Result<Config, ConfigError>,
    announce: impl FnOnce(),
) -> anyhow::Result<()> {
    let mut announce = Some(announce);
    let mut watch = tokio::time::interval(WATCH);
    let mut certificate_looks = tokio::time::interval(file_watch::LOOK);
    let mut watched = FileWatch::new(certificates::files(&config));
    loop {
        tokio::select! {
            biased; // orders before a look at the threads
            wish = signals.next() => match wish {
                Wish::End => break,
                Wish::Reload => {
                    reload(serving, &mut config, reread()).await;
                    serving.keys.look_again();
                    watched = FileWatch::new(certificates::files(&config));
                }
            },
            () = serving.shards.drain_asked() => {
                info!("draining, because an operator asked for it");
                break;
            }
            () = serving.keys.are_there(), if announce.is_some() => {
                if let Some(announce) = announce.take() {
                    announce();
                }
            }
            _ = certificate_looks.tick() => {
                if let Some(tls) = &serving.tls && watched.have_changed() {
                    certificates::reload_and_tell(tls, &config);
                }
            }
            _ = watch.tick() => {
                if !serving.running.is_alive() {
                    error!("a shard ended unexpectedly; the node stops");
                    return Ok(()); // joining tells why
                }
                // Its shards would keep their events for a bridge that takes none. Linked shards find another
                // one.
                anyhow::ensure!(
                    serving.bridge.as_ref().is_none_or(Bridging::is_alive),
                    "the bridge ended unexpectedly; the log says why"
                );
            },
        }
    }
    shut_down(serving, &config, signals).await;
    Ok(())
}

/// Ends the parts of a node in the order in which work passes through them, so that none leaves work to one
/// that has ended: clients and links, the bridge, the backend, and then the shards and the admin port, which
/// connect them. After a second signal or a deadline, the caller ends the rest without waiting.
async fn shut_down(serving: &mut Serving, config: &Config, signals: &mut Signals) {
    // A bridge node's own bridge comes first: peers that see it go would hand over again all events that it
    // has not sent.
    let is_bridge = serving.shards.role() == Role::Bridge;
    if is_bridge && !finish_bridge(serving, config, signals).await {
        return;
    }
    if !drain(serving, config, signals).await || !finish_bridge(serving, config, signals).await {
        return;
    }
    let Some(backend) = serving.backend.take() else { return };
    let stopped = tokio::task::spawn_blocking(move || backend.stop());
    tokio::select! {
        biased; // what has ended needs no second signal
        _ = stopped => {}
        () = signals.end() => warn!("stopping at once"),
    }
}

/// Lets the bridge send its events; false after a second signal.
async fn finish_bridge(serving: &mut Serving, config: &Config, signals: &mut Signals) -> bool {
    let Some(bridge) = serving.bridge.take() else { return true };
    serving.shards.set_draining();
    let deadline = Duration::from_millis(config.drain.deadline_ms.into());
    let waiting = bridge.metrics().waiting.get();
    if waiting > 0 {
        let deadline_ms = deadline.as_millis() as u64;
        info!(
            waiting,
            deadline_ms,
            "draining: the bridge sends its events to the backend; a second signal stops at once"
        );
    }
    bridge.finish(deadline);
    let mut look = tokio::time::interval(BRIDGE_WATCH);
    let mut is_in_time = true;
    while is_in_time && bridge.is_alive() {
        tokio::select! {
            biased; // there is always a next look
            () = signals.end() => {
                warn!("stopping at once");
                is_in_time = false;
            }
            _ = look.tick() => {}
        }
    }
    let left = bridge.end();
    info!(left, "the bridge has stopped; the shards of its peers keep the events that are left");
    is_in_time
}

/// Notifies the clients, and gives work under way its time; false if that was not enough.
async fn drain(serving: &Serving, config: &Config, signals: &mut Signals) -> bool {
    let of_the_cores = u64::from(config.drain.deadline_ms) + u64::from(config.engine.linger_ms);
    let deadline = Duration::from_millis(of_the_cores) + DRAIN_SLACK;
    let connections = clients(serving).await;
    info!(connections, deadline_ms = deadline.as_millis() as u64, "draining; a second signal stops at once");
    serving.shards.drain().await;
    tokio::select! {
        biased; // what is drained is neither late nor stopped
        () = serving.shards.drained() => {
            info!("drained");
            return true;
        }
        () = signals.end() => warn!("stopping at once"),
        () = tokio::time::sleep(deadline) => {
            let connections = clients(serving).await;
            warn!(connections, "the drain's deadline has passed");
        }
    }
    false
}

/// How many clients are connected; links of nodes are not counted.
async fn clients(serving: &Serving) -> u64 {
    let metrics = serving.shards.metrics().await;
    let gateways = metrics.iter().flatten().filter_map(|shard| shard.gateway.as_ref());
    gateways.map(|gateway| gateway.connections).sum()
}

async fn reload(serving: &Serving, config: &mut Config, read: Result<Config, ConfigError>) {
    let new = match read {
        Ok(new) => new,
        Err(error) => {
            error!("reload refused, the old configuration stays: {error}");
            return;
        }
    };
    if let Some(tls) = &serving.tls
        && let Err(error) = certificates::reload(tls, &new)
    {
        error!("reload refused, the old configuration and certificates stay: {error}");
        return;
    }
    let gateway = bounded(new.gateway(), serving.capacity.connections_max);
    if !serving.shards.order(|| Control::Reload(Box::new(gateway.clone()))).await {
        error!("reload: a shard does not answer; send SIGHUP again");
        return;
    }
    serving.shards.set_frame_bytes_max(new.limits.frame_bytes_max);
    let kept = Config {
        routes: new.routes.clone(),
        heartbeat: new.heartbeat.clone(),
        delivery: new.delivery.clone(),
        limits: new.limits.clone(),
        drain: new.drain.clone(),
        node: NodeConfig {
            origins: new.node.origins.clone(),
            proxy_from: new.node.proxy_from.clone(),
            certificates: new.node.certificates.clone(),
            client_ca: client_ca(config, &new),
            ..config.node.clone()
        },
        ..config.clone()
    };
    if kept != new {
        warn!(
            "reload: only routes, heartbeat, delivery, limits, drain, node.origins, node.proxy_from, node.certificates and node.client_ca take effect \
             before the next start"
        );
    }
    info!(
        "reloaded routes, heartbeat, delivery, limits, drain, node.origins, node.proxy_from, node.certificates and node.client_ca"
    );
    *config = kept;
}

/// The authorities of clients after a reload. Whether clients are asked for certificates stays as at the
/// start.
fn client_ca(before: &Config, new: &Config) -> String {
    let is_same = before.node.client_ca().is_some() == new.node.client_ca().is_some();
    if is_same { new.node.client_ca.clone() } else { before.node.client_ca.clone() }
}

fn join(serving: Serving) -> anyhow::Result<()> {
    let (done, joined) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(serving.running.join()));
    match joined.recv_timeout(STOP_TIME) {
        Ok(joined) => joined.context("a shard failed"),
        Err(_) => {
            warn!("a shard did not stop in time; the process ends without it");
            Ok(())
        }
    }
}

impl keys::Shards for Arc<Shards> {
    async fn take(&self, keys: gateway::TokenKeys) -> bool {
        self.order(|| Control::Keys(keys.clone())).await
    }

    async fn unknown_keys(&self) -> u64 {
        let metrics = self.metrics().await;
        let gateways = metrics.iter().flatten().filter_map(|shard| shard.gateway.as_ref());
        gateways.map(|gateway| gateway.tokens_refused_for(TokenError::UnknownKey)).sum()
    }
}
