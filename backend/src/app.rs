//! The state that all handlers and workers share.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::gift::Gifts;
use crate::hooks::Hooks;
use crate::http::class::class_of;
use crate::ids::Ids;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::push::Push;
use crate::sms;
use crate::store::Store;

/// The parts of the service. One for each process, behind an `Arc`.
pub struct App {
    /// The database, its cache and the queue.
    pub store: Arc<Store>,
    /// The server of the API.
    pub http: Arc<http_server::Server>,
    /// Generates ids.
    pub ids: Ids,
    /// The way to clients.
    pub push: Arc<Push>,
    /// Messages to clients that are committed.
    pub outbox: Arc<Outbox>,
    /// Messages to clients that were not there.
    pub inbox: Arc<Inbox>,
    /// The way to phones, if there is one.
    pub sms: Option<sms::Sender>,
    /// The operator's services that are asked or notified besides.
    pub hooks: Hooks,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Gifts under way.
    pub gifts: Arc<Gifts>,
}

impl App {
    /// Opens the [store](Store::open) and builds the parts that work with it.
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Self>, Error> {
        let store = Arc::new(Store::open(config, clock).await?);
        let config = &store.config;
        let (push, outbox) = (Arc::new(Push::new(config)?), Arc::<Outbox>::default());
        let metrics = Arc::<Metrics>::default();
        let sms = sms::Sender::open(config);
        let hooks = Hooks::open(&store, &push, &outbox, &metrics, sms.as_ref());
        Ok(Arc::new(Self {
            http: http_server::Server::new(config.http.clone(), class_of),
            ids: Ids::new(&store.db),
            inbox: Arc::new(Inbox::new(&store, &push, &metrics, hooks.offline_push.clone())),
            gifts: Arc::new(Gifts::new(&store, &outbox, hooks.after_gift.clone())),
            push,
            outbox,
            sms,
            hooks,
            metrics,
            store,
        }))
    }
}
