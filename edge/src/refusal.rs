//! Why a layer ends a connection.

/// Why a layer ends a connection. The layer has queued its last bytes for the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A PROXY header from an address that is no trusted proxy.
    ProxyStranger,
    /// A trusted proxy sends no PROXY header, or a malformed one.
    ProxyHeader,
    /// A handshake that is none of TLS 1.2 or 1.3, or has too many bytes.
    TlsHandshake,
    /// A client without a certificate of an authority that is taken for clients.
    TlsClient,
    /// A record that TLS does not allow.
    TlsRecord,
    /// The shard has as many handshakes of TLS under way as it may.
    TlsBusy,
    /// Bytes that are no HTTP request.
    HttpMalformed,
    /// A request head over the limit, or with too many fields.
    HttpTooLong,
    /// A request that is no upgrade to WebSocket.
    HttpNoUpgrade,
    /// An upgrade that RFC 6455 does not allow.
    HttpBadUpgrade,
    /// An upgrade to another version of WebSocket than 13.
    HttpVersion,
    /// An upgrade from an origin that is not in the list.
    HttpOrigin,
    /// An upgrade that offers only subprotocols that are not known here.
    HttpSubprotocol,
    /// A path of the Java platform's form whose code is not that of a login, or whose token is malformed.
    HttpJavaPath,
    /// The shard holds as many bytes of unfinished requests as it may.
    HttpBusy,
    /// Frames that RFC 6455 does not allow.
    WebSocketProtocol,
    /// A text message in the binary form, or a binary one in the JSON form.
    WebSocketKind,
    /// Text that is not UTF-8.
    WebSocketUtf8,
    /// A message over the limit.
    WebSocketTooBig,
}

impl Refusal {
    /// Every reason, in the order of [`Refusal::index`].
    pub const ALL: [Refusal; 19] = [
        Self::ProxyStranger,
        Self::ProxyHeader,
        Self::TlsHandshake,
        Self::TlsClient,
        Self::TlsRecord,
        Self::TlsBusy,
        Self::HttpMalformed,
        Self::HttpTooLong,
        Self::HttpNoUpgrade,
        Self::HttpBadUpgrade,
        Self::HttpVersion,
        Self::HttpOrigin,
        Self::HttpSubprotocol,
        Self::HttpJavaPath,
        Self::HttpBusy,
        Self::WebSocketProtocol,
        Self::WebSocketKind,
        Self::WebSocketUtf8,
        Self::WebSocketTooBig,
    ];

    /// Its place in [`Refusal::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics, and in the reason of a Close frame.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProxyStranger => "proxy_stranger",
            Self::ProxyHeader => "proxy_header",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsClient => "tls_client",
            Self::TlsRecord => "tls_record",
            Self::TlsBusy => "tls_busy",
            Self::HttpMalformed => "http_malformed",
            Self::HttpTooLong => "http_too_long",
            Self::HttpNoUpgrade => "http_no_upgrade",
            Self::HttpBadUpgrade => "http_bad_upgrade",
            Self::HttpVersion => "http_version",
            Self::HttpOrigin => "http_origin",
            Self::HttpSubprotocol => "http_subprotocol",
            Self::HttpJavaPath => "http_java_path",
            Self::HttpBusy => "http_busy",
            Self::WebSocketProtocol => "websocket_protocol",
            Self::WebSocketKind => "websocket_kind",
            Self::WebSocketUtf8 => "websocket_utf8",
            Self::WebSocketTooBig => "websocket_too_big",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_place() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal.index(), at, "{refusal:?}");
        }
    }
}
