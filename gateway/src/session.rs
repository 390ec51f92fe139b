//! What a shard knows of one connection. There are a million of these: every byte counts.

use shard::{Bucket, ConnId, Instant, TimerId};
use wire::client::{Deframer, Encoding, NoticeCode};
use wire::node::{Login, Revocations, SessionId};
use wire::{AppId, DeviceClass, UserId};

use crate::admission::AddressId;
use crate::dirty::Output;
use crate::outbox::{OutboxId, Owner};
use crate::rooms::Memberships;
use crate::token::Verified;

/// A connection and, from its login on, the session of a user.
pub(crate) struct Session {
    /// Meaningful from `Phase::Waiting` on, as are `app` and `device`.
    pub(crate) user: UserId,
    pub(crate) app: AppId,
    pub(crate) device: DeviceClass,
    pub(crate) phase: Phase,
    /// Set by the first frame.
    pub(crate) encoding: Option<Encoding>,
    pub(crate) output: Output,
    /// Its bytes pass through layers (`layered.rs`).
    pub(crate) has_layers: bool,
    pub(crate) address: AddressId,
    pub(crate) outbox: OutboxId,
    pub(crate) rooms: Memberships,
    pub(crate) deframer: Deframer,
    /// Orders it among the sessions of its user and device class.
    pub(crate) login: Login,
    /// The times of its token. Meaningful from `Phase::Waiting` on.
    pub(crate) token: TokenTimes,
    /// The low bits of the tag of the login that its token came from; 0 for none. In 65,536 pairs of logins
    /// of one user, one pair has the same bits; a revocation then ends both sessions, and the client comes
    /// back with the same token.
    pub(crate) token_login: u16,
    /// When the last whole frame came; in `Phase::Binding`, when its owner was asked.
    pub(crate) last_seen: Instant,
    pub(crate) bucket: Bucket,
    /// The login deadline, later the idle timer.
    pub(crate) timer: TimerId,
}

const _: () = assert!(size_of::<Session>() <= 80, "a million sessions are held in memory");

/// How others name the sessions of a shard: by their connections, whose generations count from a number of
/// this life of the shard. So names of an earlier life mean nothing to this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    epoch: u32,
}

impl Names {
    pub(crate) fn new(epoch: u32) -> Self {
        Self { epoch }
    }

    /// The name of the session of a connection.
    pub(crate) fn of(self, conn: ConnId) -> SessionId {
        let generation = conn.generation.wrapping_add(self.epoch);
        SessionId(ConnId { generation, ..conn }.as_u64())
    }

    /// The connection of a session; that of no connection, if the name is of an earlier life.
    pub(crate) fn conn(self, session: SessionId) -> ConnId {
        let conn = ConnId::from_u64(session.0);
        ConnId { generation: conn.generation.wrapping_sub(self.epoch), ..conn }
    }
}

/// When a token was made and when it ends, in seconds since the UNIX epoch by the wall clock, up to the year
/// 2106.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct TokenTimes {
    issued_secs: u32,
    end_secs: u32,
}

impl TokenTimes {
    fn of(token: &Verified) -> Self {
        let short = |secs: u64| u32::try_from(secs).unwrap_or(u32::MAX);
        Self { issued_secs: short(token.issued_secs), end_secs: short(token.claims.exp) }
    }

    /// When it ends.
    pub(crate) fn end_secs(self) -> u64 {
        self.end_secs.into()
    }
}

/// Where a session stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Connected; a login is awaited.
    Fresh,
    /// The token was good; it waits because as many logins as may be are with owners. It may send already.
    Waiting,
    /// The token was good; the owner of the user was asked to bind it. It may send already.
    Binding,
    /// Reachable.
    Live,
    /// Ended; its last bytes are being written. It gets and sends nothing any more.
    Closing,
}

impl Session {
    /// Whether a user stands behind the connection.
    pub(crate) fn is_logged_in(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Binding | Phase::Live)
    }

    /// The owner of this connection's outbox.
    pub(crate) fn owner(&self, conn: ConnId) -> Owner {
        Owner { conn, address: self.address }
    }

    /// Gives the session this token, unless it has one that ends later. Returns whether it did.
    pub(crate) fn take_token(&mut self, token: &Verified) -> bool {
        let times = TokenTimes::of(token);
        let is_taken = times.end_secs >= self.token.end_secs;
        if is_taken {
            self.token = times;
            self.token_login = token.login as u16;
        }
        is_taken
    }

    /// The notice for its client, if its token is no longer good.
    pub(crate) fn token_is_over(&self, revoked: &Revocations, now_secs: u64) -> Option<NoticeCode> {
        if now_secs >= self.token.end_secs() {
            return Some(NoticeCode::TokenExpired);
        }
        let is_login = |login: u64| login as u16 == self.token_login;
        let issued_secs = self.token.issued_secs.into();
        let is_revoked = revoked.refuses(now_secs, (self.app, self.user), issued_secs, is_login);
        is_revoked.then_some(NoticeCode::TokenInvalid)
    }

    /// The encoding of frames to the client: the client's own, binary before its first frame.
    pub(crate) fn answer_encoding(&self) -> Encoding {
        self.encoding.unwrap_or(Encoding::Binary)
    }
}
