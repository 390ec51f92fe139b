//! What a message of a peer may hold: ids that are text, numbers that a clock can have given, lists as long
//! as a cluster is large.
//!
//! A peer knows the cluster's secret, and may still be broken. A stamp, id or sequence far in the future
//! would stay above all that come after it, long after the peer is gone, so nothing of a message that has one
//! is taken.

use super::ban::{BAN_MS_MAX, BANS_PER_MESSAGE, Ban};
use super::history::{HISTORY_MESSAGES_MAX, PART_MESSAGES_MAX};
use super::link::{Identity, SHARDS_MAX};
use super::ranges::{RANGE_WORDS, RANGES};
use super::revocation::{REVOCATION_SECS_MAX, REVOCATIONS_PER_MESSAGE, Revocation};
use super::stamps::AHEAD_NS_MAX;
use super::{
    Answer, FromBridge, Handed, Kept, LinkMessage, Login, Presence, Question, Recalled, Submission, ToBridge,
    ToGateway, ToRouter,
};
use crate::client::{Message, Outcome, SendAck};
use crate::{AppId, ClientMsgId, EPOCH_UNIX_MS, MessageId, RoomId};

/// The longest payload: that of the longest frame of clients that may be configured.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// How far ahead of the own clock a number may be: a peer's clock may be a day ahead, and it believes what is
/// a day ahead of that. The third day keeps a peer that repeats what a broken one said from being taken for
/// broken itself.
const FUTURE_NS_MAX: u64 = 3 * AHEAD_NS_MAX;
/// Below the ms in a [`MessageId`].
const ID_BITS: u32 = 23;

impl LinkMessage {
    /// Whether some shard of a cluster can have said that when the own clock shows `now_ns`.
    pub fn is_sound(&self, now_ns: u64) -> bool {
        let at = Clock { now_ns };
        match self {
            Self::ToRouter(mail) => at.to_router(mail),
            Self::ToGateway(mail) => at.to_gateway(mail),
            Self::Handed(handed) => at.handed(handed),
            Self::FromBridge(FromBridge::Taken { results: _ }) => true,
        }
    }
}

/// Room messages that one ms of a room's base stands for.
const SEQUENCE_BITS: u32 = 12;

/// What the sequence of a room begins after: it grows with time faster than a room can, so a room that is
/// forgotten and comes again continues higher, on another router too. Below 2^53 until the year 2093, so JSON
/// clients read it exactly.
pub fn sequence_base(now_ns: u64) -> u64 {
    (now_ns / 1_000_000).saturating_sub(EPOCH_UNIX_MS).max(1) << SEQUENCE_BITS
}

/// The highest sequence that is believed when the own clock shows `now_ns`: no clock is a day ahead, so no
/// sequence is.
pub fn sequence_believed_max(now_ns: u64) -> u64 {
    sequence_base(now_ns.saturating_add(AHEAD_NS_MAX))
}

/// What the own clock shows.
#[derive(Clone, Copy)]
struct Clock {
    now_ns: u64,
}

impl Clock {
    fn to_router(self, mail: &ToRouter) -> bool {
        match mail {
            ToRouter::Bind { login, .. } | ToRouter::Ended { login, .. } => self.login(*login),
            ToRouter::Join { sequence, .. } => self.sequence(*sequence),
            ToRouter::Submit { submission, .. } => self.submission(submission),
            ToRouter::Settle { outcome, .. } => self.outcome(*outcome),
            ToRouter::Reach { routers, clock } => are_routers(routers) && self.login(*clock),
            ToRouter::Ask { question, .. } => match question {
                Question::PushAll { message } => self.message(message),
                Question::Revoke { revocations } => self.revocations(revocations),
                Question::Online { .. }
                | Question::Kick { .. }
                | Question::Drain { .. }
                | Question::Nodes
                | Question::History { .. } => true,
            },
            ToRouter::Unchanged { ranges, moved: _ } => ranges.len() == RANGE_WORDS,
            ToRouter::Kept(kept) => self.kept(kept),
            ToRouter::Revoked { revocations } => self.revocations(revocations),
            ToRouter::Banned { bans } => self.bans(bans),
            ToRouter::Unbind { .. }
            | ToRouter::Leave { .. }
            | ToRouter::Withdraw { .. }
            | ToRouter::View { .. }
            | ToRouter::Recall { .. } => true,
        }
    }

    fn to_gateway(self, mail: &ToGateway) -> bool {
        match mail {
            ToGateway::Bound { login, .. }
            | ToGateway::AskAgain { above: login, .. }
            | ToGateway::Ended { login, .. } => self.login(*login),
            ToGateway::Kick { notice, .. } => notice.closes(),
            ToGateway::Joined { sequence, .. } => self.sequence(*sequence),
            ToGateway::Deliver { message, .. } | ToGateway::All { message } => self.message(message),
            ToGateway::Broadcast { message, shards } => self.message(message) && are_shards(shards),
            ToGateway::SendAck { ack, .. } => self.send_ack(ack),
            ToGateway::Common { routers, clock } => are_routers(routers) && self.login(*clock),
            ToGateway::Answer { answer, .. } => match answer {
                Answer::Online { users, settled: _ } => users.iter().all(|presence| self.presence(presence)),
                Answer::Kicked { .. } | Answer::Told { .. } | Answer::Nodes { .. } => true,
                Answer::History { messages } => {
                    messages.len() <= HISTORY_MESSAGES_MAX as usize
                        && messages.iter().all(|message| self.message(message))
                }
            },
            ToGateway::Digests { digests } => digests.len() == RANGES,
            ToGateway::Recalled(recalled) => self.recalled(recalled),
            ToGateway::Moved(kept) => self.kept(kept),
            ToGateway::Revoked { revocations } => self.revocations(revocations),
            ToGateway::Banned { bans } => self.bans(bans),
            ToGateway::Full { .. }
            | ToGateway::Recheck { .. }
            | ToGateway::Superseded { .. }
            | ToGateway::Concluded { .. }
            | ToGateway::Drain
            | ToGateway::SameNumber => true,
        }
    }

    fn handed(self, Handed { seq, event }: &Handed) -> bool {
        *seq != 0
            && match event {
                ToBridge::Online { login, .. }
                | ToBridge::Offline { login, .. }
                | ToBridge::Joined { login, .. }
                | ToBridge::Left { login, .. } => self.login(*login),
                ToBridge::Undelivered { message, .. } => self.message(message),
                ToBridge::Request { client_msg_id, payload, .. } => is_text(client_msg_id, payload),
            }
    }

    fn submission(self, submission: &Submission) -> bool {
        self.id(submission.id) && is_text(&submission.client_msg_id, &submission.payload)
    }

    fn message(self, message: &Message) -> bool {
        self.id(message.id)
            && self.sequence(message.sequence)
            && is_text(&message.client_msg_id, &message.payload)
    }

    fn recalled(self, part: &Recalled) -> bool {
        let end = u64::from(part.before) + part.messages.len() as u64;
        Identity::is_shard(part.router)
            && part.shard < SHARDS_MAX
            && self.sequence(part.sequence)
            && self.sequence(part.gone)
            && part.total <= HISTORY_MESSAGES_MAX
            && end <= u64::from(part.total)
            && self.part(part.app, part.room, &part.messages)
            && part.messages.last().is_none_or(|last| last.sequence <= part.sequence)
    }

    fn kept(self, part: &Kept) -> bool {
        Identity::is_shard(part.router)
            && self.sequence(part.upto)
            && part.gone <= part.upto
            && self.part(part.app, part.room, &part.messages)
            && part.messages.first().is_none_or(|first| first.sequence > part.gone)
            && part.messages.last().is_none_or(|last| last.sequence <= part.upto)
    }

    /// Whether that is a part of a room's history: messages of the room, each once, ascending.
    fn part(self, app: AppId, room: RoomId, messages: &[Message]) -> bool {
        messages.len() <= PART_MESSAGES_MAX
            && messages.is_sorted_by(|a, b| a.sequence < b.sequence)
            && messages
                .iter()
                .all(|message| message.app == app && message.room == Some(room) && self.message(message))
    }

    fn send_ack(self, ack: &SendAck) -> bool {
        self.id(ack.id) && self.outcome(ack.outcome) && ack.client_msg_id.is_sound()
    }

    /// One that lasts too long would push out others.
    fn revocations(self, revocations: &[Revocation]) -> bool {
        let until_max = self.now_ns.saturating_add(FUTURE_NS_MAX) / 1_000_000_000 + REVOCATION_SECS_MAX;
        revocations.len() <= REVOCATIONS_PER_MESSAGE
            && revocations.iter().all(|revocation| revocation.until_secs <= until_max)
    }

    /// One that lasts too long would push out others, and one said in the future could not be lifted.
    fn bans(self, bans: &[Ban]) -> bool {
        let end_max = self.now_ns.saturating_add(FUTURE_NS_MAX) / 1_000_000 + BAN_MS_MAX;
        bans.len() <= BANS_PER_MESSAGE
            && bans.iter().all(|ban| ban.until_ms.max(ban.kept_ms) <= end_max && self.login(ban.said))
    }

    fn presence(self, presence: &Presence) -> bool {
        presence.seats.iter().all(|seat| self.login(seat.login))
    }

    fn outcome(self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Sequenced { sequence } => self.sequence(sequence),
            Outcome::Delivered | Outcome::Stored | Outcome::Answered | Outcome::Failed(_) => true,
        }
    }

    fn login(self, login: Login) -> bool {
        login.0.saturating_sub(self.now_ns) <= FUTURE_NS_MAX
    }

    fn id(self, id: MessageId) -> bool {
        id.0 >> ID_BITS <= self.ms_max()
    }

    fn sequence(self, sequence: u64) -> bool {
        sequence >> SEQUENCE_BITS <= self.ms_max()
    }

    /// The ms since [`EPOCH_UNIX_MS`] that no clock is past.
    fn ms_max(self) -> u64 {
        (self.now_ns / 1_000_000).saturating_sub(EPOCH_UNIX_MS) + FUTURE_NS_MAX / 1_000_000
    }
}

fn is_text(client_msg_id: &ClientMsgId, payload: &[u8]) -> bool {
    client_msg_id.is_sound() && payload.len() <= PAYLOAD_BYTES_MAX
}

/// Whether that names routers of a cluster, each once, ascending.
fn are_routers(routers: &[u32]) -> bool {
    routers.is_sorted_by(|a, b| a < b) && routers.iter().all(|router| Identity::is_shard(*router))
}

/// Whether that names shards of a node by index, each once, ascending.
fn are_shards(shards: &[u16]) -> bool {
    shards.is_sorted_by(|a, b| a < b) && shards.last().is_none_or(|last| *last < SHARDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_stay_exact_in_json() {
        let at_ms = |ms: u64| (EPOCH_UNIX_MS + ms) * 1_000_000;
        let year_2093 = 69 * 365 * 24 * 60 * 60 * 1000;
        assert!(sequence_base(at_ms(year_2093)) < 1 << 53);
        assert!(sequence_base(at_ms(1)) < sequence_base(at_ms(2)));
    }
}
