//! Where a server is, and in which way it is reached.

use std::fmt;

/// An address as an application or a user writes it: `host:port` for TCP, `tls://host:port`,
/// `ws://host:port/path` or `wss://host:port/path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Whether connections are by TLS.
    pub tls: bool,
    /// The path of the WebSocket, which begins with `/`, if connections are by WebSocket.
    pub websocket: Option<String>,
    /// `host:port`.
    pub authority: String,
}

impl Address {
    /// Reads an address. One without a scheme is reached as `home` is: servers name each other by
    /// `host:port`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(address: &str, home: Option<&Address>) -> Result<Self, String> {
        let wrong = || {
            format!("{address}: want HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH")
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            let way = Self { tls: false, websocket: None, authority: String::new() };
            return Ok(Self { authority: address.to_owned(), ..home.cloned().unwrap_or(way) });
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (tls, websocket, port) = match scheme {
            "tls" if path == "/" => (true, None, None),
            "ws" => (false, Some(path.to_owned()), Some(80)),
            "wss" => (true, Some(path.to_owned()), Some(443)),
            _ => return Err(wrong()),
        };
        let is_printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable(rest) || authority.is_empty() || authority.contains(['@', '?', '#']) {
            return Err(wrong());
        }
        let authority = match (has_port(authority), port) {
            (true, _) => authority.to_owned(),
            (false, Some(port)) => format!("{authority}:{port}"),
            (false, None) => return Err(wrong()),
        };
        Ok(Self { tls, websocket, authority })
    }

    /// The host, without the port.
    pub fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.tls, &self.websocket) {
            (false, None) => "",
            (true, None) => "tls://",
            (false, Some(_)) => "ws://",
            (true, Some(_)) => "wss://",
        };
        let path = self.websocket.as_deref().filter(|path| *path != "/").unwrap_or_default();
        write!(f, "{scheme}{}{path}", self.authority)
    }
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(tls: bool, path: Option<&str>, authority: &str) -> Address {
        Address { tls, websocket: path.map(str::to_owned), authority: authority.to_owned() }
    }

    #[test]
    fn a_scheme_says_the_way() {
        for (text, wanted) in [
            ("a:1", address(false, None, "a:1")),
            ("[::1]:1", address(false, None, "[::1]:1")),
            ("tls://a:1", address(true, None, "a:1")),
            ("tls://a:1/", address(true, None, "a:1")),
            ("ws://a:1/im?x=1", address(false, Some("/im?x=1"), "a:1")),
            ("ws://a", address(false, Some("/"), "a:80")),
            ("wss://[::1]", address(true, Some("/"), "[::1]:443")),
            ("wss://a.example:1", address(true, Some("/"), "a.example:1")),
        ] {
            let address = Address::parse(text, None).unwrap();
            assert_eq!(Address::parse(&address.to_string(), None).as_ref(), Ok(&wanted), "{address}");
            assert_eq!(address, wanted, "{text}");
        }
        assert_eq!(Address::parse("wss://[::1]:7", None).unwrap().host(), "[::1]");
        for wrong in [
            "http://a:1",
            "tls://a",
            "tls://a:1/im",
            "ws://",
            "ws:///im",
            "ws://u@a:1",
            "ws://a:1/\r\nx",
            "ws://a b",
        ] {
            assert!(Address::parse(wrong, None).unwrap_err().contains("want HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn an_alternative_is_reached_as_the_applications_address_is() {
        let home = Address::parse("wss://a:1/im?x=1", None).unwrap();
        assert_eq!(Address::parse("b:2", Some(&home)), Ok(address(true, Some("/im?x=1"), "b:2")));
        assert_eq!(Address::parse("ws://b:2", Some(&home)), Ok(address(false, Some("/"), "b:2")));
    }
}
