//! Messages as an rkyv archive: little-endian, unaligned, validated before anything is read.

use rkyv::rancor::Error;

use super::{NodeMessage, ToBridge, ToGateway, ToRouter};
use crate::ClientMsgId;
use crate::client::DecodeError;

/// The archive of some messages.
pub fn encode_batch(messages: &Vec<NodeMessage>) -> rkyv::util::AlignedVec {
    rkyv::to_bytes::<Error>(messages).expect("messages are plain data, so only memory could run out")
}

/// Hands each message of an archive to `take`, in order.
///
/// # Errors
/// The bytes are no archive of messages, or a message has what no encoder writes. Messages before it may have been taken.
pub fn decode_batch(bytes: &[u8], mut take: impl FnMut(NodeMessage)) -> Result<(), DecodeError> {
    let archived = rkyv::access::<rkyv::Archived<Vec<NodeMessage>>, Error>(bytes);
    for message in archived.map_err(|_| DecodeError::BadBody)?.iter() {
        let message: NodeMessage =
            rkyv::deserialize::<_, Error>(message).map_err(|_| DecodeError::BadBody)?;
        if !client_msg_id(&message).is_none_or(ClientMsgId::is_sound) {
            return Err(DecodeError::BadBody);
        }
        take(message);
    }
    Ok(())
}

/// The one id that a message carries as text.
fn client_msg_id(message: &NodeMessage) -> Option<&ClientMsgId> {
    match message {
        NodeMessage::ToRouter(ToRouter::Submit { submission, .. }) => Some(&submission.client_msg_id),
        NodeMessage::ToRouter(ToRouter::Ask { question: super::Question::PushAll { message }, .. })
        | NodeMessage::ToGateway(
            ToGateway::Deliver { message, .. }
            | ToGateway::Broadcast { message, .. }
            | ToGateway::All { message },
        ) => Some(&message.client_msg_id),
        NodeMessage::ToGateway(ToGateway::SendAck { ack, .. }) => Some(&ack.client_msg_id),
        NodeMessage::ToBridge(event) => name_of(event),
        NodeMessage::Handed(handed) => name_of(&handed.event),
        NodeMessage::ToRouter(_)
        | NodeMessage::ToGateway(_)
        | NodeMessage::FromBridge(_)
        | NodeMessage::ToDirectory(_) => None,
    }
}

fn name_of(event: &ToBridge) -> Option<&ClientMsgId> {
    match event {
        ToBridge::Undelivered { message, .. } => Some(&message.client_msg_id),
        ToBridge::Request { client_msg_id, .. } => Some(client_msg_id),
        ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => None,
    }
}
