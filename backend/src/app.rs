//! What every handler and worker shares.

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
    /// Where state is kept.
    pub store: Arc<Store>,
    /// What serves the API.
    pub http: Arc<http_server::Server>,
    /// Ids for what is made.
    pub ids: Ids,
    /// The way to clients.
    pub push: Arc<Push>,
    /// Messages to clients that are committed.
    pub outbox: Arc<Outbox>,
    /// Messages to clients who were not there.
    pub inbox: Arc<Inbox>,
    /// The way to phones, if there is one.
    pub sms: Option<sms::Sender>,
    /// What else an operator's services are asked and told.
    pub hooks: Hooks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Gifts under way.
    pub gifts: Arc<Gifts>,
}

impl App {
    /// Opens the [store](Store::open), and puts the parts together that work with it.
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
