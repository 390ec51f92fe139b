//! The nodes that this one knows.

use std::collections::BTreeMap;
use std::sync::Arc;

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
use crate::serve::Role;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/nodes", get(nodes))
}

#[derive(Serialize, ToSchema)]
pub struct NodesAnswer {
    node: OwnNode,
    /// The router shards that this node is linked with, ascending.
    routers: Vec<LinkedShard>,
    /// The gateways that the routers are linked with, ascending.
    gateways: Vec<GatewayNode>,
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
    let routers =
        if matches!(shards.role(), Role::Gateway | Role::Bridge) { routers(&peers) } else { Vec::new() };
    Json(NodesAnswer { node, routers, gateways, missing })
}

/// The links of all own shards, by the shard at the other end.
fn routers(peers: &[(ShardId, Vec<Peer>)]) -> Vec<LinkedShard> {
    let mut linked: BTreeMap<ShardId, Vec<&Peer>> = BTreeMap::new();
    for peer in peers.iter().flat_map(|(_, peers)| peers).filter(|peer| peer.info.role == LinkRole::Router) {
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
