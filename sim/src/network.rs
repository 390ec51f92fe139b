//! Connections as the network has them: bytes in order, split anywhere, late, held up by a cut, lost with a
//! reset.

use std::collections::{BTreeSet, VecDeque};

use shard::{ConnId, Life, Prng, ShardId};

/// A machine of the simulated network: a node's, or [`CLIENTS`].
pub(crate) type Host = u16;

/// Where all clients live; no node has this number.
pub(crate) const CLIENTS: Host = 0;

/// A connection; never reused.
pub(crate) type TcpId = usize;

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    /// The one that opened it.
    Opener = 0,
    /// The one that took it.
    Taker = 1,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Opener => Side::Taker,
            Side::Taker => Side::Opener,
        }
    }
}

/// Whose an end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// A shard's, under this name from the moment that it is open.
    Shard { shard: ShardId, conn: ConnId },
    /// A client's.
    Client { client: usize },
}

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Packet {
    Data(Vec<u8>),
    Fin,
}

/// One end, and what it has sent.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: Host,
    pub(crate) owner: Owner,
    pub(crate) life: Life,
    /// Given to the socket by the application, and no room for it yet.
    pub(crate) outgoing: VecDeque<u8>,
    /// Bytes of the batch that the core waits for the end of.
    pub(crate) batch: Option<usize>,
    /// Bytes sent that the peer has not taken.
    pub(crate) unacked: usize,
    /// No packet arrives before the one before it.
    pub(crate) last_arrival: u64,
    /// Packets that a cut holds up; they are repeated when it heals.
    pub(crate) held: VecDeque<Packet>,
    /// The same of what this end's peer has taken.
    pub(crate) held_credit: usize,
    /// Packets of an earlier epoch were lost with their sender.
    pub(crate) epoch: u32,
}

impl End {
    pub(crate) fn new(host: Host, owner: Owner, life: Life) -> Self {
        Self {
            host,
            owner,
            life,
            outgoing: VecDeque::new(),
            batch: None,
            unacked: 0,
            last_arrival: 0,
            held: VecDeque::new(),
            held_credit: 0,
            epoch: 0,
        }
    }

    /// Takes that many bytes, of at least as many that wait.
    pub(crate) fn cut_off(&mut self, bytes: usize) -> Vec<u8> {
        let (front, back) = self.outgoing.as_slices();
        let of_front = bytes.min(front.len());
        let piece = [&front[..of_front], &back[..bytes - of_front]].concat();
        self.outgoing.drain(..bytes);
        piece
    }

    /// What is on its way is lost, and so is what waits.
    pub(crate) fn drop_all(&mut self) {
        self.epoch += 1;
        self.outgoing.clear();
        self.held.clear();
        self.batch = None;
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    /// By [`Side`]; the taker's is there once it has taken.
    pub(crate) ends: [End; 2],
    /// Of a connect by a core.
    pub(crate) token: u64,
    /// To which shard it goes; none for any.
    pub(crate) index: Option<u16>,
    /// The network forgot it: nothing arrives but resets.
    pub(crate) is_broken: bool,
}

/// The connections, and which hosts do not hear each other.
pub(crate) struct Network {
    pub(crate) tcps: Vec<Tcp>,
    /// `(from, to)` of every direction that is cut.
    cuts: BTreeSet<(Host, Host)>,
    /// Room of a socket.
    pub(crate) room: usize,
    /// Longest piece that a stream is split into.
    pub(crate) piece_max: u64,
    pub(crate) prng: Prng,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let room = 8 << 10 << prng.below(4);
        let piece_max = [64, 1500, 9000, 65536][prng.below(4) as usize];
        Self { tcps: Vec::new(), cuts: BTreeSet::new(), room, piece_max, prng }
    }

    pub(crate) fn end(&mut self, tcp: TcpId, side: Side) -> &mut End {
        &mut self.tcps[tcp].ends[side as usize]
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: Host, to: Host) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self, from: Host, to: Host) {
        self.cuts.remove(&(from, to));
    }

    pub(crate) fn cuts(&self) -> Vec<(Host, Host)> {
        self.cuts.iter().copied().collect()
    }

    /// How long a packet takes, in ns: mostly little, at times a lot.
    pub(crate) fn delay(&mut self, from: Host, to: Host) -> u64 {
        let base = if from == CLIENTS || to == CLIENTS { 2_000_000 } else { 150_000 };
        let jitter = self.prng.below(base * 2);
        let spike = if self.prng.below(200) == 0 { self.prng.below(60_000_000) } else { 0 };
        base + jitter + spike
    }
}
