//! How clients reach a gateway: by TCP, TLS and WebSocket, and by a proxy that names them.
//!
//! Keys of TLS come from the randomness of the system, so bytes on the network differ between two runs of a
//! seed. Their lengths do not: the certificate's key is Ed25519, whose signatures all have one length, and
//! nothing else in a handshake varies in length. So a run depends on lengths and on plain text only, and
//! this is what its hash takes in.

use std::net::{IpAddr, Ipv4Addr};

use edge::{Broken, CertificatePem, ClientLayers, ClientPort, TlsClient, TlsServer, Upgrade};
use gateway::Port;
use shard::Prng;

use crate::network::TcpId;

/// Where proxies are, as gateways know them.
pub(crate) const PROXIES: &str = "10.9.0.0/16";
/// Tickets that a client keeps.
const TICKETS_MAX: usize = 2;
/// How much a client has said when it falters: at most this, which is more than all handshakes.
const STALL_BYTES_MAX: u64 = 800;
/// How long it falters, at most: longer than a gateway waits for a login.
const STALL_NS_MAX: u64 = 5_000_000_000;

/// How the connections of a client are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Way {
    /// The version of PROXY that its proxy speaks, if it has one.
    proxy: Option<u8>,
    is_tls: bool,
    is_websocket: bool,
}

impl Way {
    /// Of eight clients, three come by bare TCP, two by TLS if the plan has it, three by
    /// WebSocket, and two by a proxy.
    pub(crate) fn draw(prng: &mut Prng, tls: bool) -> Self {
        let (is_websocket, proxy) = (prng.below(3) == 0, prng.below(8));
        let is_tls = tls && prng.below(4) == 0;
        Self { proxy: [Some(1), Some(2)].get(proxy as usize).copied().flatten(), is_tls, is_websocket }
    }

    /// Whether the bytes of its connections are frames from the first to the last.
    pub(crate) fn is_bare(self) -> bool {
        self == Self::default()
    }

    /// Whether the bytes of its connections are not the same in two runs of a seed.
    pub(crate) fn is_tls(self) -> bool {
        self.is_tls
    }

    /// Where a connection seems to come from, and which listener takes it.
    pub(crate) fn entrance(self, tcp: TcpId) -> (IpAddr, u16) {
        let net = if self.proxy.is_some() { 9 } else { 1 };
        let peer = Ipv4Addr::new(10, net, (tcp >> 8) as u8, tcp as u8);
        (IpAddr::V4(peer), u16::from(self.is_websocket) + 2 * u16::from(self.is_tls))
    }

    /// What connections to one gateway, or to another, have in common.
    pub(crate) fn tls(self) -> Option<TlsClient> {
        let client = || TlsClient::new("gateway", None, TICKETS_MAX).expect("it is the name of a host");
        self.is_tls.then(client)
    }

    /// What its proxy says before anything else.
    fn header(self, tcp: TcpId) -> Vec<u8> {
        let client = [10, 1, (tcp >> 8) as u8, tcp as u8];
        match self.proxy {
            None => Vec::new(),
            Some(1) => {
                let client = Ipv4Addr::from(client);
                format!("PROXY TCP4 {client} 10.0.0.1 40000 5346\r\n").into_bytes()
            }
            Some(_) => {
                const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
                [SIGNATURE, &[0x21, 0x11, 0, 12], &client, &[10, 0, 0, 1, 0x9c, 0x40, 0x14, 0xe2]].concat()
            }
        }
    }
}

/// The listeners of a process that starts, by the numbers of [`Way::entrance`]. Its shards share what they
/// make tickets with; the next process cannot read these.
pub(crate) fn ports(now_secs: u64) -> Vec<Port> {
    let pem = CertificatePem {
        chain: include_bytes!("../pem/gateway.pem").to_vec(),
        chain_name: "gateway.pem".into(),
        key: include_bytes!("../pem/gateway.key").to_vec(),
        key_name: "gateway.key".into(),
    };
    let tls = TlsServer::new(&[pem], None, now_secs).expect("the certificate is valid in any run");
    let port = |number| Port { tls: (number >= 2).then(|| tls.clone()), websocket: number % 2 == 1 };
    (0..4).map(port).collect()
}

/// The layers of a client's connection, and frames that wait until they are open.
#[derive(Default)]
pub(crate) struct Layered {
    layers: Option<Box<ClientLayers>>,
    waiting: Vec<u8>,
    /// The gateway has said something in the innermost layer.
    has_heard: bool,
    stall: Option<Stall>,
}

/// A client falters while it connects: up to a moment no more than so many bytes leave.
struct Stall {
    bytes: usize,
    until: u64,
    held: Vec<u8>,
}

impl Layered {
    /// Those of a new connection, and its first bytes.
    pub(crate) fn open(way: Way, tls: Option<TlsClient>, tcp: TcpId) -> (Self, Vec<u8>) {
        let mut bytes = way.header(tcp);
        let upgrade = Upgrade { host: "gateway".into(), path: "/".into() };
        let port = ClientPort { tls, websocket: Some(upgrade).filter(|_| way.is_websocket) };
        let mut layers = ClientLayers::new(&port, tcp as u64).expect("the system has randomness");
        bytes.extend(layers.as_mut().map(ClientLayers::take_output).unwrap_or_default());
        (Self { layers: layers.map(Box::new), ..Self::default() }, bytes)
    }

    /// The client falters. Until when.
    pub(crate) fn stall(&mut self, now: u64, prng: &mut Prng) -> u64 {
        let bytes = prng.below(STALL_BYTES_MAX) as usize;
        let until = now + prng.below(STALL_NS_MAX);
        self.stall = Some(Stall { bytes, until, held: Vec::new() });
        until
    }

    /// The client falters no more: it is connected.
    pub(crate) fn end_stall(&mut self) {
        if let Some(stall) = &mut self.stall {
            stall.until = 0;
        }
    }

    /// What leaves of bytes that are to be sent, and of those that were held.
    pub(crate) fn pass(&mut self, now: u64, mut bytes: Vec<u8>) -> Vec<u8> {
        let Some(stall) = &mut self.stall else { return bytes };
        let held = bytes.split_off(bytes.len().min(stall.bytes));
        stall.bytes -= bytes.len();
        stall.held.extend(held);
        if now >= stall.until {
            bytes.append(&mut stall.held);
            self.stall = None;
        }
        bytes
    }

    /// Takes whole frames; what is to be sent.
    pub(crate) fn put(&mut self, frames: Vec<u8>) -> Vec<u8> {
        let Some(layers) = &mut self.layers else { return frames };
        if !layers.is_open() {
            self.waiting.extend(frames);
            return Vec::new();
        }
        layers.put(&frames);
        layers.take_output()
    }

    /// Takes what a client has read: the frames in it, and what is to be sent; or what is wrong with it.
    pub(crate) fn take(&mut self, bytes: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), Broken> {
        let Some(layers) = &mut self.layers else { return Ok((bytes, Vec::new())) };
        let mut frames = Vec::new();
        match layers.received(&bytes, &mut |piece| frames.extend_from_slice(piece)) {
            // A gateway that goes, or waits no longer for a login, says so in HTTP.
            Err(broken) if broken.name == "websocket_busy" => {}
            taken => taken?,
        }
        self.has_heard |= !frames.is_empty();
        if layers.is_open() {
            layers.put(&std::mem::take(&mut self.waiting));
        }
        Ok((frames, layers.take_output()))
    }

    /// Whether a connection that ends here was cut: the gateway was connected, and no notice in its layers
    /// says that nothing follows.
    pub(crate) fn is_cut(&self) -> bool {
        self.has_heard && self.layers.as_ref().is_some_and(|layers| !layers.has_ended())
    }
}
