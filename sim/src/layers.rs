//! How clients reach a gateway: by TCP, by WebSocket, and by a proxy that names them.

use std::net::{IpAddr, Ipv4Addr};

use edge::{Broken, ClientLayers, ClientPort, Upgrade};
use shard::Prng;

use crate::network::TcpId;

/// Where proxies are, as gateways know them.
pub(crate) const PROXIES: &str = "10.9.0.0/16";

/// How the connections of a client are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Way {
    /// The version of PROXY that its proxy speaks, if it has one.
    proxy: Option<u8>,
    is_websocket: bool,
}

impl Way {
    /// Half of the clients come by bare TCP.
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        let (is_websocket, proxy) = (prng.below(3) == 0, prng.below(8));
        Self { proxy: [Some(1), Some(2)].get(proxy as usize).copied().flatten(), is_websocket }
    }

    /// Whether the bytes of its connections are frames from the first to the last.
    pub(crate) fn is_bare(self) -> bool {
        self == Self::default()
    }

    /// Where a connection seems to come from, and which listener takes it.
    pub(crate) fn entrance(self, tcp: TcpId) -> (IpAddr, u16) {
        let net = if self.proxy.is_some() { 9 } else { 1 };
        let peer = Ipv4Addr::new(10, net, (tcp >> 8) as u8, tcp as u8);
        (IpAddr::V4(peer), u16::from(self.is_websocket))
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

/// The layers of a client's connection, and frames that wait until they are open.
#[derive(Default)]
pub(crate) struct Layered {
    layers: Option<Box<ClientLayers>>,
    waiting: Vec<u8>,
}

impl Layered {
    /// Those of a new connection, and its first bytes.
    pub(crate) fn open(way: Way, tcp: TcpId) -> (Self, Vec<u8>) {
        let mut bytes = way.header(tcp);
        let upgrade = Upgrade { host: "gateway".into(), path: "/".into() };
        let port = ClientPort { tls: None, websocket: Some(upgrade).filter(|_| way.is_websocket) };
        let mut layers = ClientLayers::new(&port, tcp as u64).expect("without TLS nothing can fail");
        bytes.extend(layers.as_mut().map(ClientLayers::take_output).unwrap_or_default());
        (Self { layers: layers.map(Box::new), waiting: Vec::new() }, bytes)
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
        if layers.is_open() {
            layers.put(&std::mem::take(&mut self.waiting));
        }
        Ok((frames, layers.take_output()))
    }
}
