//! What a shard knows of one connection. There are a million of these: every byte counts.

use shard::{Bucket, Instant, TimerId};
use wire::client::{Deframer, Encoding};
use wire::node::Login;
use wire::{AppId, DeviceClass, UserId};

use crate::admission::AddressId;
use crate::outbox::OutboxId;
use crate::rooms::Memberships;

/// A connection and, from its login on, the session of a user.
pub(crate) struct Session {
    /// Meaningful from `Phase::Waiting` on, as are `app` and `device`.
    pub(crate) user: UserId,
    pub(crate) app: AppId,
    pub(crate) device: DeviceClass,
    pub(crate) phase: Phase,
    /// Set by the first frame.
    pub(crate) encoding: Option<Encoding>,
    /// It stands in the list of connections to flush.
    pub(crate) is_dirty: bool,
    /// A batch is with the engine.
    pub(crate) is_writing: bool,
    /// Its bytes pass through layers (`layered.rs`).
    pub(crate) has_layers: bool,
    pub(crate) address: AddressId,
    pub(crate) outbox: OutboxId,
    pub(crate) rooms: Memberships,
    pub(crate) deframer: Deframer,
    /// Orders it among the sessions of its user and device class.
    pub(crate) login: Login,
    /// When its token ends, and with it the session, in seconds since the UNIX epoch by the wall clock.
    /// Meaningful from `Phase::Waiting` on.
    pub(crate) token_end_secs: u64,
    /// When the last whole frame came; in `Phase::Binding`, when its owner was asked.
    pub(crate) last_seen: Instant,
    pub(crate) bucket: Bucket,
    /// The login deadline, later the idle timer.
    pub(crate) timer: TimerId,
}

const _: () = assert!(size_of::<Session>() <= 80, "a million sessions are held in memory");

/// Where a session stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Connected; a login is awaited.
    Fresh,
    /// The token was good; as many logins as may be are with owners. It may send already.
    Waiting,
    /// The token was good; the owner of the user is asked to bind it. It may send already.
    Binding,
    /// Reachable.
    Live,
    /// Ended; its last bytes are being written. It hears and says nothing any more.
    Closing,
}

impl Session {
    /// Whether a user stands behind the connection.
    pub(crate) fn is_logged_in(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Binding | Phase::Live)
    }

    /// The encoding of what the server says: the client's own, binary before it said anything.
    pub(crate) fn answer_encoding(&self) -> Encoding {
        self.encoding.unwrap_or(Encoding::Binary)
    }
}
