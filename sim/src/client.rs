//! What a client is and knows.

use std::collections::{BTreeMap, BTreeSet};

use edge::TlsClient;
use wire::client::{Deframer, Encoding};
use wire::{AppId, DeviceClass};

use crate::layers::{Layered, Way};
use crate::model::SessionNo;
use crate::network::TcpId;

pub(crate) const APP: AppId = AppId(1);

/// A device of a user.
pub(crate) struct Client {
    pub(crate) user: i64,
    pub(crate) device: DeviceClass,
    pub(crate) encoding: Encoding,
    /// How its connections are made.
    pub(crate) way: Way,
    /// What its connections by TLS share, with its tickets.
    pub(crate) tls: Option<TlsClient>,
    pub(crate) layered: Layered,
    /// It stays away: a newer login took over.
    pub(crate) is_kicked: bool,
    /// It connects at that moment.
    pub(crate) connect_at: u64,
    pub(crate) tries: u32,
    pub(crate) tcp: Option<TcpId>,
    pub(crate) session: Option<SessionNo>,
    pub(crate) is_live: bool,
    pub(crate) began_at: u64,
    pub(crate) deframer: Deframer,
    pub(crate) heard_at: u64,
    pub(crate) said_at: u64,
    /// Bytes that a slow reader has not read, and until when.
    pub(crate) unread: Vec<u8>,
    pub(crate) reads_from: u64,
    /// Rooms that it wants to be in; joined at each login.
    pub(crate) rooms: BTreeSet<i64>,
    /// The last sequence that it has seen of each room, in whatever session.
    pub(crate) positions: BTreeMap<i64, u64>,
    /// Messages without an answer, each with when it is sent again.
    pub(crate) pending: BTreeMap<usize, u64>,
    /// Acks to be said later.
    pub(crate) late_acks: Vec<(u64, u64)>,
    pub(crate) forgets_acks: bool,
    pub(crate) busy: bool,
}

impl Client {
    pub(crate) fn new(user: i64, device: DeviceClass, encoding: Encoding, way: Way) -> Self {
        Self {
            user,
            device,
            encoding,
            way,
            tls: way.tls(),
            layered: Layered::default(),
            is_kicked: false,
            connect_at: 0,
            tries: 0,
            tcp: None,
            session: None,
            is_live: false,
            began_at: 0,
            deframer: Deframer::default(),
            heard_at: 0,
            said_at: 0,
            unread: Vec::new(),
            reads_from: 0,
            rooms: BTreeSet::new(),
            positions: BTreeMap::new(),
            pending: BTreeMap::new(),
            late_acks: Vec::new(),
            forgets_acks: false,
            busy: true,
        }
    }

    pub(crate) fn quieten(&mut self) {
        self.forgets_acks = false;
        self.busy = false;
        self.reads_from = 0;
        self.connect_at = self.connect_at.min(self.began_at + 60_000_000_000);
    }
}
