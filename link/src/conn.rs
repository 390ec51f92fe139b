//! One connection of a link.

use std::net::IpAddr;

use shard::{Instant, ShardId};
use wire::node::link::{BODY_BYTES_MAX, Deframer, Frame, HANDSHAKE_BYTES_MAX, Identity, NONCE_BYTES};

use crate::tls::Cover;

/// A connection, opened or accepted.
pub(crate) struct Conn {
    pub(crate) stage: Stage,
    pub(crate) cover: Cover,
    pub(crate) deframer: Deframer,
    /// Frames of the handshake, a refusal or a farewell, to be written first.
    pub(crate) out: Vec<u8>,
    pub(crate) is_dirty: bool,
    pub(crate) is_writing: bool,
    /// A credit is due, even if there is no batch to send.
    pub(crate) owes_credit: bool,
    /// When it was opened; later, when the other end was last heard from.
    pub(crate) heard_at: Instant,
    /// When something was last written.
    pub(crate) said_at: Instant,
    /// The token of its dial, if this side opened it.
    pub(crate) dial: Option<u64>,
    /// Where it came from, if the other side opened it.
    pub(crate) from: Option<IpAddr>,
}

/// Where the handshake is.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    /// Accepted; a `Hello` is awaited.
    Accepted,
    /// Accepted; a `Proof` is awaited.
    Challenged { hello: Party, challenge: Party },
    /// Opened; a `Challenge` is awaited.
    Greeted { hello: Party },
    /// Opened; a `Welcome` is awaited. `asked` is the session to resume (0: none), and how many of its
    /// batches had come.
    Proven { hello: Party, challenge: Party, asked: (u64, u64) },
    /// Batches go both ways.
    Linked { peer: ShardId },
    /// Its last bytes are being written.
    Closing,
}

/// One side of a handshake.
#[derive(Clone, Copy)]
pub(crate) struct Party {
    pub(crate) identity: Identity,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

impl Party {
    pub(crate) fn hello(self) -> Frame<'static> {
        Frame::Hello { identity: self.identity, nonce: self.nonce }
    }

    pub(crate) fn challenge(self) -> Frame<'static> {
        Frame::Challenge { identity: self.identity, nonce: self.nonce }
    }
}

impl Conn {
    pub(crate) fn new(now: Instant, stage: Stage, cover: Cover, dial: Option<u64>) -> Self {
        Self {
            stage,
            cover,
            deframer: Deframer::default(),
            out: Vec::new(),
            is_dirty: false,
            is_writing: false,
            owes_credit: false,
            heard_at: now,
            said_at: now,
            dial,
            from: None,
        }
    }

    /// Who is at the other end, once that is proven.
    pub(crate) fn peer(&self) -> Option<ShardId> {
        match self.stage {
            Stage::Linked { peer } => Some(peer),
            Stage::Accepted
            | Stage::Challenged { .. }
            | Stage::Greeted { .. }
            | Stage::Proven { .. }
            | Stage::Closing => None,
        }
    }

    /// Whether something is to be written that is not a batch.
    pub(crate) fn has_output(&self) -> bool {
        let has_frames = self.owes_credit || !self.out.is_empty();
        self.cover.has_records() || has_frames && !self.cover.is_shut()
    }

    /// How long the next body may be.
    pub(crate) fn body_bytes_max(&self) -> usize {
        if self.peer().is_some() { BODY_BYTES_MAX } else { HANDSHAKE_BYTES_MAX }
    }
}
