//! What a shard can be sent within its process, and what it reports to the control thread.

use std::net::SocketAddr;

use gateway::Push;
use shard::Instant;
use wire::client::{FailReason, Outcome};
use wire::node::{Answer, FoundSeat, Question, Stream, Target, ToGateway, ToRouter};
use wire::{AppId, RoomId, UserId};

use crate::bridging::Origin;
use crate::handover::HandoverMetrics;

/// What a shard can be sent by others of its process.
pub enum Mail {
    /// For the gateway core.
    ToGateway(ToGateway),
    /// For the router core.
    ToRouter(ToRouter),
    /// From the control thread.
    Control(Control),
}

/// What the control thread asks of a shard. `ask` comes back in the report.
pub enum Control {
    /// Wants [`Report::Stats`].
    Stats {
        /// The number of the question.
        ask: u64,
    },
    /// Wants [`Report::Peers`].
    Peers {
        /// The number of the question.
        ask: u64,
    },
    /// Wants [`Report::Asked`], and then as many [`Report::Answer`] as that says.
    Ask {
        /// The number of the question.
        ask: u64,
        /// What.
        question: Question,
    },
    /// Send a lossy message to every session of its app; wants what [`Control::Ask`] does.
    PushAll {
        /// The number of the question.
        ask: u64,
        /// The message.
        push: Push,
    },
    /// Send a message; wants [`Report::Pushed`].
    Push {
        /// The number of the question.
        ask: u64,
        /// Whom it is for.
        target: Target,
        /// The message.
        push: Push,
    },
    /// Use this configuration from here on.
    Reload(Box<gateway::Config>),
    /// Check tokens with these keys from here on.
    Keys(gateway::TokenKeys),
    /// The nodes to link with, by the link addresses of their shards 0.
    Nodes {
        /// The routers.
        routers: Vec<SocketAddr>,
        /// The bridges.
        bridges: Vec<SocketAddr>,
    },
    /// The bridge of this process reports the results of events.
    Taken {
        /// The shard to which they belong.
        of: Origin,
        /// The results by event number.
        results: Vec<(u64, wire::node::Taken)>,
    },
    /// The directory knows sessions of a user.
    Found {
        /// The app.
        app: AppId,
        /// Who.
        user: UserId,
        /// Where, and in which life of each seat's process.
        seats: Vec<FoundSeat>,
    },
    /// The directory sends a room's stream.
    Stream(Box<Stream>),
    /// The directory has refused what an owner wrote to a room's stream, as the stream has a higher sequence.
    StreamIsAhead {
        /// The room's app.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// The sequence that was refused.
        refused: u64,
    },
    /// The directory has lost bindings: send all of them again.
    Resync,
    /// Drain; [`Report::Drained`] when nothing is left.
    Drain,
    /// Close everything and end the thread.
    Stop,
}

/// What a shard tells the control thread.
pub enum Report {
    /// Answers [`Control::Stats`].
    Stats {
        /// The number of the question.
        ask: u64,
        /// What the cores count.
        metrics: Box<ShardMetrics>,
    },
    /// Answers [`Control::Peers`].
    Peers {
        /// The number of the question.
        ask: u64,
        /// The peers, ascending.
        peers: Vec<Peer>,
    },
    /// Answers [`Control::Ask`] and [`Control::PushAll`]: how many answers will come; 0 if there is no router
    /// to ask. Answers [`Control::Push`] with 0 for the same reason.
    Asked {
        /// The number of the question.
        ask: u64,
        /// How many answers will come.
        parts: usize,
    },
    /// One of these answers.
    Answer {
        /// The number of the question.
        ask: u64,
        /// The answer.
        answer: Answer,
    },
    /// Answers [`Control::Push`] when [`Report::Pushed`] will follow.
    Taken {
        /// The number of the question.
        ask: u64,
        /// The message's id.
        id: u64,
    },
    /// Answers [`Control::Push`].
    Pushed {
        /// The number of the question.
        ask: u64,
        /// The message's id; 0 when it got none.
        id: u64,
        /// Its outcome; `None` for a lossy message, which has none.
        outcome: Option<Outcome>,
    },
    /// An operator wants this node to drain.
    DrainAsked,
    /// Another process that started earlier has the number of this node.
    SameNumber,
    /// Nothing is left.
    Drained,
}

/// What the cores of one shard count.
#[derive(Default)]
pub struct ShardMetrics {
    /// Of the gateway core, if there is one.
    pub gateway: Option<gateway::Metrics>,
    /// Of the router core, if there is one.
    pub router: Option<router::Metrics>,
    /// Of the links, if there are any.
    pub links: Option<link::Metrics>,
    /// Messages to a peer whose queue is full: dropped, or failed.
    pub link_overflows: u64,
    /// Of events handed over to a bridge, if there is one.
    pub handover: Option<HandoverMetrics>,
    /// Of events that would have gone to a bridge.
    pub unbridged: Unbridged,
}

/// Counts of events for a bridge on a node that has none, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unbridged {
    /// Sessions that came.
    pub online: u64,
    /// Sessions that ended.
    pub offline: u64,
    /// Room joins.
    pub joined: u64,
    /// Room leaves.
    pub left: u64,
    /// Business packets for the backend; their senders were told that there is no route.
    pub requests: u64,
    /// Reliable messages that were handed over as undelivered, in the order of [`FailReason::ALL`].
    pub undelivered: [u64; FailReason::ALL.len()],
}

/// The other end of a link.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// As the links know it.
    pub info: link::PeerInfo,
    /// Whether it owns users and rooms, as this gateway shard sees it.
    pub is_owner: bool,
    /// The time to which `info.since` is relative.
    pub now: Instant,
}
