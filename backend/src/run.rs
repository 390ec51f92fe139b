//! The running process: the listener, the workers, and their end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use logs::warn;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::error::Error;
use crate::stop::Stop;
use crate::store::second_delete;
use crate::{event_streams, gift, hooks, http, inbox, order_expiry, outbox, revocations, session_check};

/// How long the end waits for connections to the database that are in use.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// How long spans may take to leave at the end.
const EXPORT_TIME: Duration = Duration::from_millis(500);

/// A backend at work.
pub struct Backend {
    app: Arc<App>,
    address: SocketAddr,
    /// The tasks that bring work in: the API and the bridge's streams.
    intake: Tasks,
    /// The tasks that do the work.
    workers: Tasks,
}

/// Tasks that end together.
struct Tasks {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Tasks {
    fn new() -> (Self, Stop) {
        let (stop, stopping) = watch::channel(false);
        (Self { stop, tasks: JoinSet::new() }, Stop::from(stopping))
    }

    async fn end(&mut self) {
        let _ = self.stop.send(true); // all may have ended
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Backend {
    /// Serves the API and starts the workers.
    pub fn start(app: Arc<App>, listener: TcpListener) -> Result<Self, Error> {
        Self::start_with(app, listener, None)
    }

    /// The same by TLS, if `tls` is given.
    pub fn start_with(
        app: Arc<App>,
        listener: TcpListener,
        tls: Option<http_server::TlsServer>,
    ) -> Result<Self, Error> {
        let fault = |error: std::io::Error| Error::internal(format!("listener: {error}"));
        listener.set_nonblocking(true).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(fault)?;
        let (mut intake, no_more) = Tasks::new();
        let (mut workers, stopping) = Tasks::new();
        let (server, router, mut end) = (app.http.clone(), http::router(app.clone()), no_more.clone());
        intake.tasks.spawn(server.serve(listener, tls, router, async move { end.wait().await }));
        intake.tasks.spawn(event_streams::run(app.clone(), no_more));
        let watched = app.store.clone();
        workers.tasks.spawn(until(stopping.clone(), async move {
            watched.db.watch_replicas(watched.config.replica_lag_ms_max, &watched.clock).await;
        }));
        let (store, events) = (&app.store, app.hooks.events().cloned().collect());
        workers.tasks.spawn(gift::run(app.gifts.clone(), stopping.clone()));
        let (outbox, push) = (app.outbox.clone(), app.push.clone());
        workers.tasks.spawn(outbox::run(outbox, push, store.clone(), stopping.clone()));
        workers.tasks.spawn(inbox::run(app.inbox.clone(), stopping.clone()));
        workers.tasks.spawn(hooks::events::run(store.clone(), events, stopping.clone()));
        workers.tasks.spawn(order_expiry::run(store.clone(), stopping.clone()));
        workers.tasks.spawn(revocations::run(store.clone(), app.push.clone(), stopping.clone()));
        workers.tasks.spawn(session_check::run(app.clone(), stopping.clone()));
        workers.tasks.spawn(second_delete::run(store.clone(), stopping));
        Ok(Self { app, address, intake, workers })
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What handlers and workers share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Accepts no more requests, lets those under way finish and then the workers that they wait for, for
    /// `deadline` at most, and ends the connections.
    pub async fn stop(mut self, deadline: Duration) {
        let all = async {
            self.intake.end().await;
            self.app.store.db.ends();
            self.workers.end().await;
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!("the backend ended with requests under way");
            self.intake.tasks.abort_all();
            self.workers.tasks.abort_all();
        }
        self.app.store.end_traces(EXPORT_TIME).await;
        if tokio::time::timeout(CLOSE_TIME, self.app.store.db.close()).await.is_err() {
            warn!("the backend ended with database connections in use");
        }
    }
}

/// Works until it is time to end.
async fn until(mut stop: Stop, work: impl Future<Output = ()>) {
    tokio::select! {
        biased; // no further step once it is time to end
        () = stop.wait() => {}
        () = work => {}
    }
}
