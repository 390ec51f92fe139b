//! The nodes that this one knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use node::Peer;
use serde::Serialize;
use shard::ShardId;
use utoipa::ToSchema;
use wire::node::link::Role as LinkRole;
use wire::node::{Answer, Question};

use super::Admin;
use super::error::ApiError;
use crate::role::Role;

/// How often the list is updated, so that a node that goes was seen before.
const LOOK: Duration = Duration::from_secs(5);
/// How long a node that has gone is listed.
const GONE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
const SEEN_MAX: usize = 1_024;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/nodes", get(nodes))
}

#[derive(Serialize, ToSchema)]
pub struct NodesAnswer {
    node: OwnNode,
    /// The router shards that this node is linked with, ascending.
    routers: Vec<LinkedShard>,
    /// The bridges that this node is linked with, ascending.
    bridges: Vec<LinkedShard>,
    /// The gateways that the routers are linked with, ascending.
    gateways: Vec<GatewayNode>,
    /// Nodes that were among these within a day, and are not any more, ascending.
    gone: Vec<GoneNode>,
    /// Why `gateways` is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// The node that was asked.
#[derive(Serialize, ToSchema)]
pub struct OwnNode {
    id: u16,
    role: &'static str,
    shards: usize,
    /// Of clients.
    connections: u64,
    draining: bool,
}

/// A shard of another node, as the own shards see it.
#[derive(Serialize, ToSchema)]
pub struct LinkedShard {
    node: u16,
    shard: u16,
    /// Whether every own shard is linked with it and has a connection.
    up: bool,
    /// Whether it owns users and rooms.
    owner: bool,
    /// Since when the newest of the links lasts, in ms since the UNIX epoch.
    since_ms: u64,
    /// Bytes that wait for it, or are on their way and not taken in.
    queued_bytes: u64,
}

/// A node that is not seen any more: it has died or was stopped, or nothing leads to it.
#[derive(Serialize, ToSchema, PartialEq, Eq, Debug)]
pub struct GoneNode {
    node: u16,
    role: &'static str,
    /// When it was seen last, in ms since the UNIX epoch.
    seen_ms: u64,
}

#[derive(Serialize, ToSchema)]
pub struct GatewayNode {
    node: u16,
    sessions: u64,
    /// Ascending.
    shards: Vec<GatewayShard>,
}

#[derive(Serialize, ToSchema)]
pub struct GatewayShard {
    shard: u16,
    /// Logged-in sessions.
    sessions: u64,
}

/// The nodes that this one knows.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = NodesAnswer)))]
pub async fn nodes(State(admin): State<Arc<Admin>>) -> Json<NodesAnswer> {
    Json(look(&admin).await)
}

/// Updates the list of nodes again and again.
pub async fn watch(admin: Arc<Admin>) {
    if admin.shards.role() == Role::Up {
        return; // there are no others
    }
    loop {
        tokio::time::sleep(LOOK).await;
        look(&admin).await;
    }
}

async fn look(admin: &Admin) -> NodesAnswer {
    let shards = &admin.shards;
    let (metrics, peers) = tokio::join!(shards.metrics(), shards.peers());
    let gateway_cores = metrics.iter().flatten().filter_map(|shard| shard.gateway.as_ref());
    let node = OwnNode {
        id: shards.node(),
        role: shards.role().name(),
        shards: shards.ids().len(),
        connections: gateway_cores.map(|gateway| gateway.connections).sum(),
        draining: shards.is_draining(),
    };
    let (gateways, missing) = match shards.question(Question::Nodes).await {
        Ok(answers) => (gateways(&answers), None),
        Err(unanswered) => (Vec::new(), Some(ApiError::from(unanswered).into_message())),
    };
    let (routers, bridges) = (linked(&peers, LinkRole::Router), linked(&peers, LinkRole::Bridge));
    let present = routers.iter().map(|router| (router.node, Role::Router.name()));
    let present = present.chain(bridges.iter().map(|bridge| (bridge.node, Role::Bridge.name())));
    let present = present.chain(gateways.iter().map(|gateway| (gateway.node, Role::Gateway.name())));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).expect("64 bits of ms hold half a billion years");
    let mut gone = admin.seen.lock().unwrap_or_else(PoisonError::into_inner).look(now_ms, present);
    // Without answers, nobody confirms that gateways are still there.
    gone.retain(|gone| missing.is_none() || gone.role != Role::Gateway.name());
    NodesAnswer { node, routers, bridges, gateways, gone, missing }
}

/// The nodes that were seen.
#[derive(Default)]
pub struct Seen(BTreeMap<u16, (&'static str, u64)>);

/// The nodes that [`look`] remembers, shared by all callers.
pub type SharedSeen = Mutex<Seen>;

impl Seen {
    /// Notes which nodes are present. Returns those that were seen before and are not.
    fn look(&mut self, now_ms: u64, present: impl Iterator<Item = (u16, &'static str)>) -> Vec<GoneNode> {
        for (node, role) in present {
            self.0.insert(node, (role, now_ms));
        }
        self.0.retain(|_, (_, seen_ms)| now_ms.saturating_sub(*seen_ms) < GONE_MS_MAX);
        while self.0.len() > SEEN_MAX {
            let oldest = self.0.iter().min_by_key(|(_, (_, seen_ms))| *seen_ms).map(|(node, _)| *node);
            oldest.map(|node| self.0.remove(&node));
        }
        let gone = self.0.iter().filter(|(_, (_, seen_ms))| *seen_ms != now_ms);
        gone.map(|(&node, &(role, seen_ms))| GoneNode { node, role, seen_ms }).collect()
    }
}

/// The links of all own shards with nodes of a role, by the shard at the other end.
fn linked(peers: &[(ShardId, Vec<Peer>)], role: LinkRole) -> Vec<LinkedShard> {
    let mut linked: BTreeMap<ShardId, Vec<&Peer>> = BTreeMap::new();
    for peer in peers.iter().flat_map(|(_, peers)| peers).filter(|peer| peer.info.role == role) {
        linked.entry(peer.info.shard).or_default().push(peer);
    }
    let of = |(shard, links): (ShardId, Vec<&Peer>)| LinkedShard {
        node: shard.node(),
        shard: shard.index(),
        up: links.len() == peers.len() && links.iter().all(|link| link.info.is_connected),
        owner: links.iter().any(|link| link.is_owner),
        since_ms: links.iter().map(|link| link.info.since.unix_millis()).max().unwrap_or_default(),
        queued_bytes: links.iter().map(|link| link.info.queued_bytes).sum(),
    };
    linked.into_iter().map(of).collect()
}

/// Each router shard knows the sessions that it owns: their sum over all routers is what a gateway holds.
fn gateways(answers: &[Answer]) -> Vec<GatewayNode> {
    let mut nodes: BTreeMap<u16, BTreeMap<u16, u64>> = BTreeMap::new();
    for answer in answers {
        let Answer::Nodes { shards } = answer else { continue };
        for load in shards {
            let shard = ShardId::from_u32(load.shard);
            *nodes.entry(shard.node()).or_default().entry(shard.index()).or_default() +=
                u64::from(load.sessions);
        }
    }
    let of = |(node, shards): (u16, BTreeMap<u16, u64>)| GatewayNode {
        node,
        sessions: shards.values().sum(),
        shards: shards.into_iter().map(|(shard, sessions)| GatewayShard { shard, sessions }).collect(),
    };
    nodes.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use wire::node::ShardLoad;

    use super::*;

    #[test]
    fn a_node_that_goes_is_told_of_until_it_is_back() {
        let mut seen = Seen::default();
        let all = || [(1, "router"), (33, "gateway")].into_iter();
        assert_eq!(seen.look(1_000, all()), []);
        let gone = GoneNode { node: 33, role: "gateway", seen_ms: 1_000 };
        assert_eq!(seen.look(9_000, all().take(1)), [gone]);
        assert_eq!(seen.look(10_000, all()), []);
        assert_eq!(seen.look(10_000 + GONE_MS_MAX, all().take(1)), [], "after a day");
        let many = (0..SEEN_MAX as u16).map(|node| (node, "gateway"));
        seen.look(u64::MAX / 2, many);
        assert_eq!(seen.look(u64::MAX / 2 + 1, std::iter::once((5_000, "gateway"))).len(), SEEN_MAX - 1);
    }

    #[test]
    fn sessions_are_summed_over_routers() {
        let load = |node, index, sessions| ShardLoad { shard: ShardId::new(node, index).as_u32(), sessions };
        let answers = [
            Answer::Nodes { shards: vec![load(34, 0, 1), load(33, 1, 2)] },
            Answer::Nodes { shards: vec![load(33, 0, 4), load(33, 1, 8), load(34, 0, 0)] },
        ];
        let nodes = serde_json::to_value(gateways(&answers)).unwrap();
        let shard = |shard: u16, sessions: u64| serde_json::json!({ "shard": shard, "sessions": sessions });
        let wanted = serde_json::json!([
            { "node": 33, "sessions": 14, "shards": [shard(0, 4), shard(1, 10)] },
            { "node": 34, "sessions": 1, "shards": [shard(0, 1)] },
        ]);
        assert_eq!(nodes, wanted);
    }
}
