//! Messages as an rkyv archive: little-endian, unaligned, validated before anything is read.

use rkyv::rancor::Error;

use super::LinkMessage;
use super::link::{BATCH_MESSAGES_MAX, Refusal};

/// The archive of some messages.
pub fn encode_batch(messages: &Vec<LinkMessage>) -> rkyv::util::AlignedVec {
    rkyv::to_bytes::<Error>(messages).expect("messages are plain data, so only memory could run out")
}

/// Hands each message of an archive to `take`, in order, when the own clock shows `now_ns`.
///
/// # Errors
/// The bytes are no archive of messages, or of more than a batch has; a message is not sound; or what `take`
/// answered. Messages before it have been taken.
pub fn decode_batch(
    bytes: &[u8],
    now_ns: u64,
    mut take: impl FnMut(LinkMessage) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let archived = rkyv::access::<rkyv::Archived<Vec<LinkMessage>>, Error>(bytes);
    let archived = archived.map_err(|_| Refusal::BadBatch)?;
    if archived.len() > BATCH_MESSAGES_MAX {
        return Err(Refusal::BadBatch);
    }
    for message in archived.iter() {
        let message: LinkMessage = rkyv::deserialize::<_, Error>(message).map_err(|_| Refusal::BadBatch)?;
        if !message.is_sound(now_ns) {
            return Err(Refusal::BadMessage);
        }
        take(message)?;
    }
    Ok(())
}
