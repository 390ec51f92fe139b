//! The frames of a link between two shards of different nodes. All numbers are big-endian; docs/PROTOCOL.md
//! draws them.
//!
//! The connector says `Hello`, the acceptor `Challenge`, the connector `Proof`, the acceptor `Welcome`. After
//! that both send `Batch` and `Credit`. The proofs are computed by whoever knows the secret; here are only
//! bytes.

use super::LinkMessage;
use super::stamps::AHEAD_NS_MAX;

/// "SFLK": the first field of a `Hello`.
pub const MAGIC: u32 = 0x5346_4c4b;
/// The version of the node protocol, archives included. Nodes of different versions do not talk.
pub const VERSION: u16 = 8;
/// Bytes of a frame's header: `len: u32 | kind: u8`; `len` counts what follows the header.
pub const HEADER_BYTES: usize = 5;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// Bytes of a proof: HMAC-SHA-256.
pub const PROOF_BYTES: usize = 32;
/// The longest body. A batch stops to grow long before, but one message may be as long as a client's frame.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Messages of one batch.
pub const BATCH_MESSAGES_MAX: usize = 1024;
/// The highest number of a node. 0 is a node without links.
pub const NODE_MAX: u16 = 1023;
/// Shards of a node that has links.
pub const SHARDS_MAX: u16 = 32;
/// The longest body before both sides have proven themselves.
pub const HANDSHAKE_BYTES_MAX: usize = 128;

/// What a node is to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// It holds clients and opens links.
    Gateway = 1,
    /// It owns users and rooms and takes links.
    Router = 2,
    /// It passes events on to a backend: it takes links from gateways and opens links to routers.
    Bridge = 3,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Self::Gateway, Self::Router, Self::Bridge];

    /// Whether a shard of this role takes links that one of that role opens.
    pub const fn takes(self, opener: Role) -> bool {
        matches!((self, opener), (Self::Router, Self::Gateway | Self::Bridge) | (Self::Bridge, Self::Gateway))
    }

    /// Whether a shard of this role says such a message to one of that role.
    pub const fn may_say(self, message: &LinkMessage, to: Role) -> bool {
        match message {
            LinkMessage::ToRouter(_) => matches!((self, to), (Self::Gateway | Self::Bridge, Self::Router)),
            LinkMessage::ToGateway(_) => matches!((self, to), (Self::Router, Self::Gateway | Self::Bridge)),
            LinkMessage::Handed(_) => matches!((self, to), (Self::Gateway | Self::Router, Self::Bridge)),
            LinkMessage::FromBridge(_) => matches!((self, to), (Self::Bridge, Self::Gateway | Self::Router)),
        }
    }
}

/// Which shard stands at an end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The packed shard id.
    pub shard: u32,
    /// How many shards its node has.
    pub shards: u16,
    /// What it is.
    pub role: Role,
    /// Which life of the process: when it started, in ns since the UNIX epoch.
    pub incarnation: u64,
}

impl Identity {
    /// Whether a packed shard id can be that of a shard with links.
    pub const fn is_shard(packed: u32) -> bool {
        let (node, index) = ((packed >> 16) as u16, packed as u16);
        1 <= node && node <= NODE_MAX && index < SHARDS_MAX
    }

    /// Whether the shard at the other end can be that one, when this one is `own` and its clock shows
    /// `now_ns`: a shard of another node, of a process that started no later than clocks differ.
    pub const fn is_sound(&self, own: Identity, now_ns: u64) -> bool {
        let index = self.shard as u16;
        Self::is_shard(self.shard)
            && self.shard >> 16 != own.shard >> 16
            && index < self.shards
            && self.shards <= SHARDS_MAX
            && self.incarnation.saturating_sub(now_ns) <= AHEAD_NS_MAX
    }
}

/// Why a link was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// The proof does not fit the secret.
    Secret = 1,
    /// Another version of the protocol.
    Version = 2,
    /// Bytes that are no frame, or a frame out of turn.
    BadFrame = 3,
    /// A body that is too long.
    TooLong = 4,
    /// A batch that is no archive of messages.
    BadBatch = 5,
    /// No handshake in time.
    Late = 6,
    /// A process started later has the same node id, or the two have another connection, or the session is
    /// gone.
    Stale = 7,
    /// That role does not link with this one.
    Role = 8,
    /// No shard of another node is called so, or its clock is more than a day ahead.
    Identity = 9,
    /// A message that the sender's role does not say, or with what no shard says: [`LinkMessage::is_sound`].
    BadMessage = 10,
    /// More events for a bridge, or bytes of batches, than may be under way.
    Flood = 11,
    /// One end wants TLS, and the other one speaks in clear.
    NoTls = 12,
    /// Bytes that are no TLS, or that were changed on their way.
    BadTls = 13,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 13] = [
        Self::Secret,
        Self::Version,
        Self::BadFrame,
        Self::TooLong,
        Self::BadBatch,
        Self::Late,
        Self::Stale,
        Self::Role,
        Self::Identity,
        Self::BadMessage,
        Self::Flood,
        Self::NoTls,
        Self::BadTls,
    ];

    /// The reason of that number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == number)
    }

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Version => "version",
            Self::BadFrame => "bad_frame",
            Self::TooLong => "too_long",
            Self::BadBatch => "bad_batch",
            Self::Late => "late",
            Self::Stale => "stale",
            Self::Role => "role",
            Self::Identity => "identity",
            Self::BadMessage => "bad_message",
            Self::Flood => "flood",
            Self::NoTls => "no_tls",
            Self::BadTls => "bad_tls",
        }
    }
}

/// A frame of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// The connector's first.
    Hello {
        /// Who connects.
        identity: Identity,
        /// Made for this connection alone.
        nonce: [u8; NONCE_BYTES],
    },
    /// The acceptor's first.
    Challenge {
        /// Who accepts.
        identity: Identity,
        /// Made for this connection alone.
        nonce: [u8; NONCE_BYTES],
    },
    /// The connector knows the secret.
    Proof {
        /// The session it wants to resume; 0 for none.
        session: u64,
        /// How many batches of it came.
        received: u64,
        /// Over everything said so far.
        proof: [u8; PROOF_BYTES],
    },
    /// The acceptor knows it too.
    Welcome {
        /// The session that goes on: the one asked for, or a fresh one.
        session: u64,
        /// How many batches of it came; 0 for a fresh one.
        received: u64,
        /// Over everything said so far.
        proof: [u8; PROOF_BYTES],
    },
    /// The sender closes, and why.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Some messages.
    Batch {
        /// As in `Credit`.
        received: u64,
        /// See [`super::decode_batch`].
        archive: &'a [u8],
    },
    /// The sender is alive and has taken in so many batches.
    Credit {
        /// Counted from the session's beginning.
        received: u64,
    },
    /// The sender goes for good, and has said everything.
    Bye,
}

impl<'a> Frame<'a> {
    /// Appends header and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let kind = match *self {
            Self::Hello { identity, nonce } => {
                out.extend_from_slice(&MAGIC.to_be_bytes());
                put_identity(identity, nonce, out);
                1
            }
            Self::Challenge { identity, nonce } => {
                put_identity(identity, nonce, out);
                2
            }
            Self::Proof { session, received, proof } => {
                put_proof(session, received, proof, out);
                3
            }
            Self::Welcome { session, received, proof } => {
                put_proof(session, received, proof, out);
                4
            }
            Self::Refused { reason } => {
                out.push(reason as u8);
                5
            }
            Self::Batch { received, archive } => {
                out.extend_from_slice(&received.to_be_bytes());
                out.extend_from_slice(archive);
                6
            }
            Self::Credit { received } => {
                out.extend_from_slice(&received.to_be_bytes());
                7
            }
            Self::Bye => 8,
        };
        let body = out.len() - start - HEADER_BYTES;
        put_header(kind, body, &mut out[start..]);
    }

    /// The head of a batch, header and fixed field, whose archive follows as it is.
    pub fn batch_head(received: u64, archive_bytes: usize) -> [u8; HEADER_BYTES + 8] {
        let mut head = [0; HEADER_BYTES + 8];
        put_header(6, 8 + archive_bytes, &mut head);
        head[HEADER_BYTES..].copy_from_slice(&received.to_be_bytes());
        head
    }

    /// The frame of that kind and body.
    ///
    /// # Errors
    /// Why the link is refused.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader(body);
        let frame = match kind {
            1 => {
                if reader.u32()? != MAGIC {
                    return Err(Refusal::BadFrame);
                }
                let (identity, nonce) = reader.identity()?;
                Self::Hello { identity, nonce }
            }
            2 => {
                let (identity, nonce) = reader.identity()?;
                Self::Challenge { identity, nonce }
            }
            3 => Self::Proof { session: reader.u64()?, received: reader.u64()?, proof: reader.take()? },
            4 => Self::Welcome { session: reader.u64()?, received: reader.u64()?, proof: reader.take()? },
            5 => Self::Refused { reason: Refusal::from_u8(reader.u8()?).ok_or(Refusal::BadFrame)? },
            6 => Self::Batch { received: reader.u64()?, archive: std::mem::take(&mut reader.0) },
            7 => Self::Credit { received: reader.u64()? },
            8 => Self::Bye,
            _ => return Err(Refusal::BadFrame),
        };
        if reader.0.is_empty() { Ok(frame) } else { Err(Refusal::BadFrame) }
    }
}

/// Cuts the stream of a link into frames. A frame that is whole in the input is borrowed from it.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The frame at the input's end that is not whole yet, header included.
    partial: Vec<u8>,
}

impl Deframer {
    /// Hands kind and body of each frame to `take`, which says how long the next body may be, or an end.
    ///
    /// # Errors
    /// What `take` answered, or [`Refusal::TooLong`]; the stream is lost then.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut body_bytes_max: usize,
        mut take: impl FnMut(u8, &[u8]) -> Result<usize, Refusal>,
    ) -> Result<(), Refusal> {
        while !input.is_empty() {
            if self.partial.is_empty() {
                match whole(input, body_bytes_max)? {
                    Some(bytes) => {
                        body_bytes_max = take(input[4], &input[HEADER_BYTES..bytes])?;
                        input = &input[bytes..];
                    }
                    None => {
                        self.partial.extend_from_slice(input);
                        return Ok(());
                    }
                }
                continue;
            }
            let wanted = match self.partial.first_chunk() {
                Some(len) => HEADER_BYTES + u32::from_be_bytes(*len) as usize,
                None => HEADER_BYTES,
            };
            let wanted = wanted.max(HEADER_BYTES);
            let (more, rest) = input.split_at(input.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(more);
            input = rest;
            if whole(&self.partial, body_bytes_max)?.is_some() {
                let frame = std::mem::take(&mut self.partial);
                body_bytes_max = take(frame[4], &frame[HEADER_BYTES..])?;
            }
        }
        Ok(())
    }
}

/// The bytes of the frame at the front of `input`, if it is whole.
fn whole(input: &[u8], body_bytes_max: usize) -> Result<Option<usize>, Refusal> {
    let Some(len) = input.first_chunk() else { return Ok(None) };
    let body = u32::from_be_bytes(*len) as usize;
    if body > body_bytes_max {
        return Err(Refusal::TooLong);
    }
    let bytes = HEADER_BYTES + body;
    Ok((input.len() >= bytes).then_some(bytes))
}

fn put_header(kind: u8, body: usize, out: &mut [u8]) {
    let body = u32::try_from(body).expect("BODY_BYTES_MAX is far below 4 GiB");
    out[..4].copy_from_slice(&body.to_be_bytes());
    out[4] = kind;
}

fn put_identity(identity: Identity, nonce: [u8; NONCE_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&identity.shard.to_be_bytes());
    out.extend_from_slice(&identity.shards.to_be_bytes());
    out.push(identity.role as u8);
    out.extend_from_slice(&identity.incarnation.to_be_bytes());
    out.extend_from_slice(&nonce);
}

fn put_proof(session: u64, received: u64, proof: [u8; PROOF_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(&session.to_be_bytes());
    out.extend_from_slice(&received.to_be_bytes());
    out.extend_from_slice(&proof);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Refusal::BadFrame)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Refusal> {
        self.take().map(u64::from_be_bytes)
    }

    fn identity(&mut self) -> Result<(Identity, [u8; NONCE_BYTES]), Refusal> {
        if self.u16()? != VERSION {
            return Err(Refusal::Version);
        }
        let (shard, shards) = (self.u32()?, self.u16()?);
        let number = self.u8()?;
        let role = Role::ALL.into_iter().find(|role| *role as u8 == number).ok_or(Refusal::Role)?;
        Ok((Identity { shard, shards, role, incarnation: self.u64()? }, self.take()?))
    }
}
