//! What the log reports about a node's links: which came and went, and which were refused; and about
//! connections to the wrong ports for clients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use link::SameNumber;
use node::{Peer, ShardMetrics};
use shard::ShardId;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};
use wire::client::NoticeCode;
use wire::node::link::Refusal;

use crate::control::Shards;
use crate::role::Role;

/// How often the links are checked.
const LOOK: Duration = Duration::from_secs(2);
/// How long a node may take to find a router, at its start or after it has lost all, before the log says so.
const ALONE_TIME: Duration = Duration::from_secs(10);
/// How often refused links or clients are logged at most; each line has the totals.
const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// Watches the links of a node for as long as it lives.
pub async fn links(shards: Arc<Shards>) {
    if shards.role() == Role::Up {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut linked, mut refused) = (Linked::default(), Growth::new());
    let (mut same_number, mut same_numbers) = (Growth::new(), Growth::new());
    let wants_routers = matches!(shards.role(), Role::Gateway | Role::Bridge);
    let mut alone = Alone::new(Instant::now());
    loop {
        ticks.tick().await;
        linked.look(&shards.peers().await);
        if wants_routers && !shards.is_draining() {
            alone.look(Instant::now(), linked.owners.is_empty());
        }
        if same_number.look(Instant::now(), [shards.same_number()]).is_some() {
            warn!(
                node = shards.node(),
                "another process has the number of this node: it started earlier, and the routers refuse it. Stop one of the two, or give it another cluster.node; the routers log where both are",
            );
        }
        let metrics = shards.metrics().await;
        let totals = of_links(&metrics);
        if let Some(new) = refused.look(Instant::now(), totals) {
            let names = Refusal::ALL.map(Refusal::name);
            let remedies = remedies(&Refusal::ALL, new, remedy);
            warn!(
                node = shards.node(),
                new = new.iter().sum::<u64>(),
                refused_total = counts(names, totals),
                "links were refused, by this node or by its peer: {remedies}",
            );
        }
        let links = metrics.iter().flatten().filter_map(|shard| shard.links.as_ref());
        if same_numbers.look(Instant::now(), [links.map(|links| links.same_numbers).sum()]).is_some() {
            log_same_numbers(&metrics);
        }
    }
}

/// Logs which nodes run twice, as the shards last saw it.
fn log_same_numbers(metrics: &[Option<Box<ShardMetrics>>]) {
    let links = metrics.iter().flatten().filter_map(|shard| shard.links.as_ref());
    let seen: BTreeSet<SameNumber> = links.filter_map(|links| links.same_number).collect();
    for SameNumber { node, earlier, later } in seen {
        let [refused, linked] =
            [earlier, later].map(|address| address.map_or("?".into(), |ip| ip.to_string()));
        warn!(
            node,
            refused,
            linked,
            "two processes have the number of one node: the one that started earlier is refused. Stop one of the two, or give it another cluster.node"
        );
    }
}

/// Watches connections to the ports for clients that are refused before a frame, for as long as the node
/// lives.
pub async fn clients(shards: Arc<Shards>) {
    if shards.role().takes_links() {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = Growth::new();
    loop {
        ticks.tick().await;
        let totals = of_clients(&shards.metrics().await);
        if let Some(new) = refused.look(Instant::now(), totals) {
            let names = STRANGERS.map(Stranger::name);
            let remedies = remedies(&STRANGERS, new, stranger_remedy);
            warn!(
                new = new.iter().sum::<u64>(),
                refused_total = counts(names, totals),
                "connections were refused before their first frame: {remedies}",
            );
        }
    }
}

/// Whether routers are linked.
struct Alone {
    /// When the next line may say that none is.
    warn_from: Instant,
    is_told: bool,
}

impl Alone {
    fn new(now: Instant) -> Self {
        Self { warn_from: now + ALONE_TIME, is_told: false }
    }

    /// Logs that no router is linked, once a minute while that lasts, and that it is over. Returns whether it
    /// logged.
    fn look(&mut self, now: Instant, is_alone: bool) -> bool {
        if !is_alone {
            self.warn_from = now + ALONE_TIME;
            if std::mem::take(&mut self.is_told) {
                info!("a router is linked: users can log in and get messages");
                return true;
            }
            return false;
        }
        if now < self.warn_from {
            return false;
        }
        warn!(
            "no router is linked, so nobody can log in or get messages: are the routers running, at the addresses of cluster.routers?"
        );
        (self.warn_from, self.is_told) = (now + REFUSED_EVERY, true);
        true
    }
}

/// The shards of other nodes.
#[derive(Default)]
struct Linked {
    /// Each with the life of its process.
    peers: BTreeSet<(ShardId, u64)>,
    owners: BTreeSet<ShardId>,
}

impl Linked {
    /// Logs changes. A shard that does not answer hides nothing: the others have the same links.
    fn look(&mut self, of_shards: &[(ShardId, Vec<Peer>)]) {
        let peers = || of_shards.iter().flat_map(|(_, peers)| peers);
        let seen = Self {
            peers: peers().map(|peer| (peer.info.shard, peer.info.incarnation)).collect(),
            owners: peers().filter(|peer| peer.is_owner).map(|peer| peer.info.shard).collect(),
        };
        if seen.peers != self.peers || seen.owners != self.owners {
            info!(
                linked = seen.peers.len(),
                gained = seen.peers.difference(&self.peers).count(),
                lost = self.peers.difference(&seen.peers).count(),
                owners = seen.owners.len(),
                owners_gained = seen.owners.difference(&self.owners).count(),
                owners_lost = self.owners.difference(&seen.owners).count(),
                "the shards of other nodes have changed"
            );
        }
        *self = seen;
    }
}

/// Counters that are logged when they have grown, once a minute at most.
struct Growth<const N: usize> {
    logged: [u64; N],
    /// When the next line may be written.
    log_from: Option<Instant>,
}

impl<const N: usize> Growth<N> {
    fn new() -> Self {
        Self { logged: [0; N], log_from: None }
    }

    /// The growth that no line has reported yet, if a line is due; it then counts as reported.
    fn look(&mut self, now: Instant, totals: [u64; N]) -> Option<[u64; N]> {
        let mut new = totals;
        new.iter_mut().zip(self.logged).for_each(|(new, logged)| *new = new.saturating_sub(logged));
        if new.iter().all(|new| *new == 0) || self.log_from.is_some_and(|from| now < from) {
            return None;
        }
        self.logged = totals;
        self.log_from = Some(now + REFUSED_EVERY);
        Some(new)
    }
}

/// The counts that are not 0, by name.
fn counts<const N: usize>(names: [&str; N], totals: [u64; N]) -> String {
    let counts = names.into_iter().zip(totals).filter(|(_, total)| *total > 0);
    let counts: Vec<String> = counts.map(|(name, total)| format!("{name} {total}")).collect();
    counts.join(", ")
}

/// What to check for the reasons that have grown, each remedy once.
fn remedies<R: Copy, const N: usize>(
    reasons: &[R; N],
    new: [u64; N],
    remedy: impl Fn(R) -> &'static str,
) -> String {
    let grown = reasons.iter().zip(new).filter(|(_, new)| *new > 0);
    let mut remedies: Vec<&str> = grown.map(|(reason, _)| remedy(*reason)).collect();
    remedies.dedup();
    remedies.join("; ")
}

/// What to check.
const fn remedy(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Secret => "secret: cluster.secret is not the same on both",
        Refusal::Version => "version: the nodes are of different versions",
        Refusal::BadFrame | Refusal::TooLong => {
            "bad_frame, too_long: the other end is no node; look at cluster.routers"
        }
        Refusal::BadBatch => "bad_batch: a batch was corrupted on its way, or the other node is broken",
        Refusal::Identity | Refusal::BadMessage | Refusal::Flood => {
            "identity, bad_message, flood: the other node sends what no node sends; it is broken"
        }
        Refusal::Late => "late: the other end does not answer",
        Refusal::Stale => {
            "stale: of two nodes with the same cluster.node the one that started earlier is refused, or one router stands twice in cluster.routers"
        }
        Refusal::NoTls => {
            "no_tls: cluster.tls is required on one end and off on the other; set it to optional on all nodes first"
        }
        Refusal::BadTls => "bad_tls: the other end is no node, or records were changed on their way",
        Refusal::Role => {
            "role: the other end is no router or no bridge; look at cluster.routers and cluster.bridges"
        }
    }
}

/// Why a port for clients refused a connection before a frame.
#[derive(Clone, Copy)]
enum Stranger {
    /// By a layer.
    Edge(edge::Refusal),
    /// On a port without layers, or after them.
    Magic,
}

const STRANGERS: [Stranger; edge::Refusal::ALL.len() + 1] = {
    let mut strangers = [Stranger::Magic; edge::Refusal::ALL.len() + 1];
    let mut at = 0;
    while at < edge::Refusal::ALL.len() {
        strangers[at] = Stranger::Edge(edge::Refusal::ALL[at]);
        at += 1;
    }
    strangers
};

impl Stranger {
    const fn name(self) -> &'static str {
        match self {
            Self::Edge(refusal) => refusal.name(),
            Self::Magic => NoticeCode::BadMagic.name(),
        }
    }
}

/// What to check.
fn stranger_remedy(stranger: Stranger) -> &'static str {
    use edge::Refusal::*;
    match stranger {
        Stranger::Magic => "bad_magic: a client sent no frame; TLS or HTTP may have come to the plain port",
        Stranger::Edge(ProxyStranger) => {
            "proxy_stranger: a PROXY header from an address that is not in node.proxy_from"
        }
        Stranger::Edge(ProxyHeader) => "proxy_header: an address of node.proxy_from sends no PROXY header",
        Stranger::Edge(TlsHandshake) => {
            "tls_handshake: a client spoke no TLS to a port with TLS, or trusts no certificate of ours"
        }
        Stranger::Edge(TlsClient) => {
            "tls_client: a client has no certificate of an authority in node.client_ca"
        }
        Stranger::Edge(TlsRecord) => "tls_record: a client, or something between, sends malformed records",
        Stranger::Edge(TlsBusy) => "tls_busy: more handshakes at once than a shard has",
        Stranger::Edge(HttpOrigin) => "http_origin: a page of an origin that is not in node.origins",
        Stranger::Edge(HttpJavaPath) => {
            "http_java_path: a path of the Java platform's form without the code 1001, or without a token"
        }
        Stranger::Edge(HttpBusy) => "http_busy: more unfinished requests than a shard holds",
        Stranger::Edge(
            HttpMalformed | HttpTooLong | HttpNoUpgrade | HttpBadUpgrade | HttpVersion | HttpSubprotocol,
        ) => "http: a client asked a port with WebSocket for something else",
        Stranger::Edge(WebSocketProtocol | WebSocketKind | WebSocketUtf8 | WebSocketTooBig) => {
            "websocket: a client does not keep to the protocol"
        }
    }
}

/// Links that were refused by all shards, in the order of [`Refusal::ALL`].
fn of_links(metrics: &[Option<Box<ShardMetrics>>]) -> [u64; Refusal::ALL.len()] {
    let mut totals = [0; Refusal::ALL.len()];
    for links in metrics.iter().flatten().filter_map(|shard| shard.links.as_ref()) {
        totals.iter_mut().zip(links.refused).for_each(|(total, count)| *total += count);
    }
    totals
}

/// Clients that were refused by all shards, in the order of [`STRANGERS`].
fn of_clients(metrics: &[Option<Box<ShardMetrics>>]) -> [u64; STRANGERS.len()] {
    let mut totals = [0; STRANGERS.len()];
    for gateway in metrics.iter().flatten().filter_map(|shard| shard.gateway.as_ref()) {
        let counts = gateway.edge_refusals.into_iter().chain([gateway.notices_of(NoticeCode::BadMagic)]);
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_not_warned_of_and_an_end_of_loneliness_is_told() {
        let start = Instant::now();
        let mut alone = Alone::new(start);
        assert!(!alone.look(start, true), "it has just started");
        assert!(!alone.look(start + Duration::from_secs(1), false), "nothing was said");
        let lost = start + Duration::from_secs(60);
        assert!(!alone.look(lost, false));
        let at = |after: Duration| lost + after;
        assert!(!alone.look(at(ALONE_TIME / 2), true), "a moment without any");
        assert!(alone.look(at(ALONE_TIME), true));
        assert!(!alone.look(at(ALONE_TIME * 2), true), "once a minute");
        assert!(alone.look(at(ALONE_TIME + REFUSED_EVERY), true));
        assert!(alone.look(at(REFUSED_EVERY * 2), false), "it is over");
        assert!(!alone.look(at(REFUSED_EVERY * 2), false));
    }

    #[test]
    fn what_has_grown_is_logged_at_most_once_a_minute() {
        let (mut growth, start) = (Growth::new(), Instant::now());
        assert_eq!(growth.look(start, [0, 0]), None, "nothing was refused");
        assert_eq!(growth.look(start, [2, 0]), Some([2, 0]));
        assert_eq!(growth.look(start + REFUSED_EVERY - Duration::from_secs(1), [2, 1]), None);
        assert_eq!(growth.look(start + REFUSED_EVERY, [2, 1]), Some([0, 1]));
        assert_eq!(growth.look(start + 2 * REFUSED_EVERY, [2, 1]), None, "nothing more was refused");
    }

    #[test]
    fn a_line_has_counts_by_name_and_each_remedy_once() {
        assert_eq!(counts(["a", "b", "c"], [1, 0, 2]), "a 1, c 2");
        assert_eq!(remedies(&[1_usize, 2, 3], [1, 0, 5], |_| "look"), "look");
        assert_eq!(remedies(&[1_usize, 2], [1, 1], |at| ["", "one", "two"][at]), "one; two");
    }
}
