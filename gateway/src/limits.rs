//! What no configuration may exceed, and how the bounds depend on each other.

use std::time::Duration;

use wire::client::TOKEN_BYTES_MAX;

/// The smallest limit of a frame's body that may be configured: every answer fits.
pub const FRAME_BYTES_FLOOR: u32 = 768;
/// The longest body of a frame that may be configured.
pub const FRAME_BYTES_CEILING: u32 = 1 << 20;
/// The longest body of a frame before the login, and the longest text: the longest token, and as much again
/// for what stands around it.
pub const LOGIN_BYTES_MAX: usize = 2 * TOKEN_BYTES_MAX;
/// Bytes of frames, texts and records that are not whole, of all connections of a shard without a login.
pub const UNFINISHED_BYTES_MAX: u64 = 16 << 20;
/// The same of connections with a login.
pub const USER_UNFINISHED_BYTES_MAX: u64 = 256 << 20;
/// Of what is free of either, one address may have one part in so many.
pub const UNFINISHED_PARTS: u64 = 8;
/// With a login, up to this many bytes that came at once, or are held, are not counted.
pub const UNFINISHED_FREE: usize = 2048;
/// Connections of one shard; the index of a connection shares the 8 bytes of a timer with a flight.
pub const CONNECTIONS_CEILING: u32 = 1 << 24;
/// Rooms of one session; they are searched one by one.
pub const ROOMS_CEILING: u16 = 256;
/// Tries of one message.
pub const TRIES_CEILING: u8 = 8;
/// Messages in flight to one connection; they are searched one by one.
pub const WINDOW_CEILING: u16 = 1024;
/// The longest answer to a frame that leaves the connection open: a send-ack in JSON whose name has 64
/// control characters. A test measures it.
pub const ANSWER_BYTES_MAX: usize = 640;
/// Bytes of answers that may wait for one connection however full the shard is.
pub const CONTROL_BYTES_MIN: usize = 16 * 1024;
/// Bytes of answers beside which a message is written again.
pub const RETRY_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a message or an ordered answer counts for while it waits or is in flight; its frame counts
/// besides.
pub const ENTRY_BYTES: usize = 96;
/// All connections of one address may have this many times what is free in the pool of outboxes.
pub const ADDRESS_SHARES: u64 = 3;
/// One connection may have this part of the bytes that are free in the pool of outboxes.
pub const OUTBOX_SHARES: u64 = 16;
/// The same for a connection whose address has more than [`ADDRESS_SHARES`] times what is free.
pub const OUTBOX_SHARES_MIN: u64 = 256;
/// How many outboxes are checked for one that has too much, before something is added to a pool that is
/// short; and how many messages that one gives up at once.
pub const GREEDY_LOOKS: usize = 4;
pub const GREEDY_MESSAGES: usize = 64;
/// How much of the time between two messages without room counts as time in which the client did not read.
pub const STALL_STEP_MAX: Duration = Duration::from_secs(1);
/// The name of a host, as DNS bounds it.
pub const HOST_BYTES_MAX: usize = 253;
/// Logins of one shard that may wait for owners at once, at first.
pub const LOGINS_AT_START: u32 = 512;
/// The lowest value of that number.
pub const LOGINS_MIN: u32 = 16;
/// The highest value of that number.
pub const LOGINS_MAX: u32 = 8192;
/// Logins that wait for room among these. They are asked to come back when their deadline passes, further
/// ones at once.
pub const LOGINS_WAITING_MAX: usize = 16_384;
/// After how long a refused one may come back, at the earliest, and over how long all of them are spread.
pub const LOGIN_RETRY: Duration = Duration::from_secs(1);
/// How long clients must be read again, after a pause, before any counts as silent.
pub const HEARING_TIME: Duration = Duration::from_secs(1);
/// Connections that one step of a drain looks at.
pub const FAREWELLS_PER_STEP: usize = 4096;
/// The pause between two steps of a drain.
pub const FAREWELL_PAUSE: Duration = Duration::from_millis(10);
/// Sessions that one step of an announcement looks at, so that it takes about a tenth of a shard's time: a
/// million take four seconds, if routers take them in as fast.
pub const ANNOUNCEMENTS_PER_STEP: usize = 1024;
/// Messages that one step submits again after a change of owners.
pub const RESUBMISSIONS_PER_STEP: usize = 512;
/// Ended sessions that are remembered, in case the router that was told of them goes.
pub const ENDS_MAX: usize = 4096;
/// Announcements that one router may have to answer at once, at first.
pub const ANNOUNCED_AT_START: u32 = 64;
/// By how much that grows after a round of answers in time, once some round was late; before, twice as much.
pub const ANNOUNCED_STEP: u32 = 16;
/// The lowest value of that number.
pub const ANNOUNCED_MIN: u32 = 4;
/// The highest value of that number.
pub const ANNOUNCED_MAX: u32 = 4096;
/// Changes of owners whose announcements may be under way; the next one first ends them all.
pub const ANNOUNCE_STAGES_MAX: usize = 8;
/// The pause between two steps of an announcement; chance makes it up to half shorter or longer.
pub const ANNOUNCE_PAUSE: Duration = Duration::from_millis(4);
/// Events taken from a wheel in one turn.
pub const TIMEOUTS_PER_TURN: usize = 4096;

const _: () = assert!(CONTROL_BYTES_MIN > 16 * ANSWER_BYTES_MAX, "some answers always fit");
const _: () = assert!((WINDOW_CEILING as u64) < u32::MAX as u64);
/// Frames of reliable messages up to this size are copied into a write; larger ones are shared with it.
pub const FRAME_COPY_BYTES_MAX: usize = 1024;
/// Bytes of answers that a pooled outbox keeps room for.
pub const POOLED_BYTES_MAX: usize = 1024;
/// Messages of each lane that a pooled outbox keeps room for.
pub const POOLED_ENTRIES_MAX: usize = 16;
/// Payload bytes that wait for the end of a room's interval; with more, all leave at once.
pub const HELD_BYTES_MAX: usize = 16 * 1024;
/// A frame that waits for a member may be part of a piece up to this many times as long; from a longer piece
/// it is copied.
pub const PINNED_TIMES_MAX: usize = 4;
/// Messages of a room that wait for the owner's answer to the shard's join; further ones come too late. Twice
/// what `router.room_burst` lets come at once by default.
pub const EARLY_MESSAGES_MAX: usize = 8 * 1024;
/// Payload bytes of these messages. One that is longer than all of them comes too late as well.
pub const EARLY_BYTES_MAX: usize = 8 << 20;
/// Rooms without members here whose sequences are remembered: 400 KB at most. Later rooms begin above
/// forgotten ones, by the clock that all nodes share.
pub const LEFT_ROOMS_MAX: usize = 4096;
/// Of these, the rooms left last are told to their next owners when theirs die.
pub const LEFT_ROOMS_TOLD_MAX: usize = 256;
/// Owners that hear of the end of one message: those of a few changes while it is in flight.
pub const OWED_ROUTERS_MAX: usize = 8;

/// The highest number of messages of one business code that a room may be set to keep, as in `router`.
pub const HISTORY_MESSAGES_CEILING: u32 = 4096;
/// The highest number of their bytes that may be set.
pub const HISTORY_BYTES_CEILING: u32 = 1 << 20;
/// The longest time that they may be set to be kept, a day.
pub const HISTORY_MS_CEILING: u32 = 24 * 60 * 60 * 1000;
/// How many frames a join counts for if it wants earlier messages.
pub const RECOVERY_FRAMES: u32 = 4;
/// KiB of what rooms said before that a user may be told in a second, sustained.
pub const TOLD_KIB_PER_SECOND: u32 = 1024;
/// KiB of these at once: of sixteen rooms all that each may keep.
pub const TOLD_KIB_BURST: u32 = 16 * 1024;
/// Records of TLS, and messages and fragments of WebSocket, that one frame may come in. Beyond that, each of
/// this many count as a frame.
pub const PIECES_PER_FRAME: u8 = 16;
/// How many frames an empty TLS record counts for: a change of keys takes as long as some short frames, and
/// no client needs many.
pub const SILENT_FRAMES: u32 = 4;
/// How many frames a renewal counts for, unless its token is the one that the session has: verifying a token
/// takes as long as some hundred short frames.
pub const RENEWAL_FRAMES: u32 = 50;
/// A renewal takes at most this part of what a connection may send at once.
pub const RENEWAL_PARTS: u32 = 4;
/// After how long a room's owner that has not answered is asked again: longer than it waits itself for the
/// history of the owner before.
pub const RECALL_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wire::client::{
        Encoding, FailReason, HEADER_BYTES, HEARTBEAT_ECHO_BYTES_MAX, NoticeCode, Outcome, Recovery, SendAck,
        ServerFrame,
    };
    use wire::{AppId, ClientMsgId, MessageId, RoomId, UserId};

    use super::*;
    use crate::notices::notice_text;

    #[test]
    fn no_answer_is_longer_than_is_counted_on() {
        let ack = SendAck {
            client_msg_id: ClientMsgId::new(Bytes::from_static(&[1; 64])),
            id: MessageId(u64::MAX),
            outcome: Outcome::Sequenced { sequence: u64::MAX },
        };
        let mut frame = Vec::new();
        ServerFrame::SendAck(ack).encode(Encoding::Json, AppId(i32::MIN), UserId(i64::MIN), &mut frame);
        assert!((500..=ANSWER_BYTES_MAX).contains(&frame.len()), "{} bytes", frame.len());
    }

    #[test]
    fn every_answer_fits_the_shortest_limit() {
        let id = MessageId(u64::MAX);
        let client_msg_id = ClientMsgId::new(vec![1; ClientMsgId::BYTES_MAX].into());
        let ack =
            |outcome| ServerFrame::SendAck(SendAck { client_msg_id: client_msg_id.clone(), id, outcome });
        let failures = FailReason::ALL.map(|reason| ack(Outcome::Failed(reason)));
        let notices = NoticeCode::ALL.map(|code| ServerFrame::Notice {
            code,
            text: notice_text(code).into(),
            retry_after_ms: u32::MAX,
            alternatives: Vec::new(),
        });
        let room = RoomId(i64::MIN);
        let others = [
            ServerFrame::LoggedIn { heartbeat_ms: u32::MAX },
            ServerFrame::LoggedOut,
            ServerFrame::Heartbeat { echo: &[7; HEARTBEAT_ECHO_BYTES_MAX] },
            ServerFrame::Joined { room, sequence: u64::MAX, recovery: Some(Recovery::Complete) },
            ServerFrame::Left { room },
            ack(Outcome::Sequenced { sequence: u64::MAX }),
        ];
        for frame in failures.into_iter().chain(notices).chain(others) {
            for encoding in [Encoding::Binary, Encoding::Json, Encoding::JsonOld] {
                let mut bytes = Vec::new();
                frame.encode(encoding, AppId(i32::MIN), UserId(i64::MIN), &mut bytes);
                let body = bytes.len() - HEADER_BYTES;
                assert!(body <= FRAME_BYTES_FLOOR as usize, "{body} bytes of {frame:?}");
            }
        }
    }
}
