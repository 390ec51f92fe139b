//! What lies outside of a shard's cores: here, notes of what they say.

use shard::Instant;
use wire::client::{FailReason, Outcome, SendAck};
use wire::node::{SessionId, ToBridge, ToDirectory, ToGateway};
use wire::{ClientMsgId, MessageId};

/// Takes notes; the world reads them after each turn.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) bridge: Vec<ToBridge>,
    pub(crate) directory: Vec<ToDirectory>,
}

impl node::Outside for Notes {
    fn bridge(&mut self, _now: Instant, message: ToBridge) -> Option<ToGateway> {
        let ToBridge::Request { session, ref client_msg_id, .. } = message else {
            self.bridge.push(message);
            return None;
        };
        (!client_msg_id.is_empty()).then(|| no_route(session, client_msg_id.clone()))
    }

    fn directory(&mut self, _now: Instant, record: ToDirectory) {
        self.directory.push(record);
    }

    fn unbridged(&self) -> node::Unbridged {
        node::Unbridged::default()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant) {}

    fn end(&mut self, _now: Instant) {}
}

fn no_route(session: SessionId, client_msg_id: ClientMsgId) -> ToGateway {
    let ack = SendAck { client_msg_id, id: MessageId(0), outcome: Outcome::Failed(FailReason::NoRoute) };
    ToGateway::SendAck { session, submitted: MessageId(0), ack }
}
