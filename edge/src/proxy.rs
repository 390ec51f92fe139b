//! The PROXY protocol, versions 1 and 2, as HAProxy's `doc/proxy-protocol.txt` defines it: a proxy says,
//! before anything else, whose connection it passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Refusal;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest header of version 1, its line end included.
const LINE_BYTES_MAX: usize = 107;
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// The addresses of version 2 that are read: two of IPv6, and two ports.
const ADDRESS_BYTES_MAX: usize = 36;

const _: () = assert!(FIXED_BYTES + ADDRESS_BYTES_MAX <= LINE_BYTES_MAX, "one buffer serves both versions");

/// A header of which not everything has arrived. It holds what it reads of the header; what it does not read
/// (TLVs, the addresses of other families) it skips.
#[derive(Debug)]
pub(crate) struct Header {
    bytes: [u8; LINE_BYTES_MAX],
    len: u8,
    /// Bytes of version 2 to skip, once those that are read are there.
    skip: Option<u16>,
}

/// Whom a whole header names: the client, or nobody, when the proxy speaks for itself or does not know.
pub(crate) type Client = Option<IpAddr>;

impl Header {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; LINE_BYTES_MAX], len: 0, skip: None }
    }

    /// Takes the header's bytes off the front of `input`; `None` while some are missing. A wrong byte is an
    /// error as soon as it comes.
    pub(crate) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Client>, Refusal> {
        loop {
            if let Some(skip) = &mut self.skip {
                let skipped = usize::from(*skip).min(input.len());
                *input = &input[skipped..];
                *skip -= skipped as u16;
                return Ok((*skip == 0).then(|| self.client_v2()));
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.bytes[usize::from(self.len)] = byte;
            self.len += 1;
            if self.have().first() == WORD.first() {
                if let Some(client) = self.line_v1()? {
                    return Ok(Some(client));
                }
            } else {
                self.fixed_v2()?;
            }
        }
    }

    fn have(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Looks at a line of version 1 up to its last byte.
    fn line_v1(&self) -> Result<Option<Client>, Refusal> {
        let line = self.have();
        let begins = line.len().min(WORD.len());
        if line[..begins] != WORD[..begins] {
            return Err(Refusal::ProxyHeader);
        }
        match line.strip_suffix(b"\r\n") {
            Some(line) => client_v1(line).map(Some).ok_or(Refusal::ProxyHeader),
            None if line.len() == LINE_BYTES_MAX || line.ends_with(b"\n") => Err(Refusal::ProxyHeader),
            None => Ok(None),
        }
    }

    /// Looks at a header of version 2 up to the last byte that is read, and sets what is to be skipped after
    /// that.
    fn fixed_v2(&mut self) -> Result<(), Refusal> {
        let have = self.have();
        let begins = have.len().min(SIGNATURE.len());
        if have[..begins] != SIGNATURE[..begins] {
            return Err(Refusal::ProxyHeader);
        }
        // Version 2, command LOCAL or PROXY.
        if have.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
            return Err(Refusal::ProxyHeader);
        }
        if have.len() < FIXED_BYTES {
            return Ok(());
        }
        let bytes = u16::from_be_bytes([have[14], have[15]]);
        let read = self.addresses_v2();
        if bytes < read {
            return Err(Refusal::ProxyHeader);
        }
        if have.len() == FIXED_BYTES + usize::from(read) {
            self.skip = Some(bytes - read);
        }
        Ok(())
    }

    /// How many bytes of addresses are read: only those of a passed-on TCP connection over IPv4 or IPv6.
    fn addresses_v2(&self) -> u16 {
        match (self.bytes[12], self.bytes[13]) {
            (0x21, 0x11) => 12,
            (0x21, 0x21) => 36,
            _ => 0,
        }
    }

    fn client_v2(&self) -> Client {
        let address = &self.bytes[FIXED_BYTES..];
        match (self.addresses_v2(), address.first_chunk::<4>(), address.first_chunk::<16>()) {
            (12, Some(source), _) => Some(Ipv4Addr::from(*source).into()),
            (36, _, Some(source)) => Some(Ipv6Addr::from(*source).to_canonical()),
            _ => None,
        }
    }
}

/// Whether a connection begins with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begins {
    Yes,
    /// The next bytes will tell.
    Perhaps,
    No,
}

/// Whether a connection begins with a header; this tells an untrusted proxy from a client.
pub(crate) fn begins(bytes: &[u8]) -> Begins {
    let words: [&[u8]; 2] = [WORD, SIGNATURE];
    if words.iter().any(|word| bytes.starts_with(word)) {
        Begins::Yes
    } else if words.iter().any(|word| word.starts_with(bytes)) {
        Begins::Perhaps
    } else {
        Begins::No
    }
}

/// Reads a line of version 1 without its end.
fn client_v1(line: &[u8]) -> Option<Client> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, target) = (words.next()?, words.next()?);
    let (from, to) = (words.next()?, words.next()?);
    if words.next().is_some() || !is_port(from) || !is_port(to) {
        return None;
    }
    match family {
        "TCP4" => {
            target.parse::<Ipv4Addr>().ok()?;
            Some(Some(source.parse::<Ipv4Addr>().ok()?.into()))
        }
        "TCP6" => {
            target.parse::<Ipv6Addr>().ok()?;
            Some(Some(source.parse::<Ipv6Addr>().ok()?.to_canonical()))
        }
        _ => None,
    }
}

/// A port in decimal without leading zeros.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
        && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: &[u8] = b"SF\0\0";

    /// What comes of a header in two reads, at every split, with bytes after it.
    fn taken(header: &[u8]) -> Result<Option<Client>, Refusal> {
        let whole = [header, AFTER].concat();
        let outcomes: Vec<_> = (0..=whole.len()).map(|split| in_two(&whole, split)).collect();
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        outcomes[0]
    }

    fn in_two(whole: &[u8], split: usize) -> Result<Option<Client>, Refusal> {
        let mut header = Header::new();
        let (mut first, second) = whole.split_at(split);
        let client = header.take(&mut first)?;
        let rest = [first, second].concat();
        let (client, rest) = match client {
            Some(client) => (Some(client), rest),
            None => {
                let mut rest = &rest[..];
                (header.take(&mut rest)?, rest.to_vec())
            }
        };
        if client.is_some() {
            assert_eq!(rest, AFTER, "split at {split}");
        }
        Ok(client)
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family][..], &len, body].concat()
    }

    #[test]
    fn a_line_of_version_1_names_the_client() {
        let named = |line: &str| taken(format!("{line}\r\n").as_bytes());
        let client = |text: &str| Ok(Some(Some(text.parse().unwrap())));
        assert_eq!(named("PROXY TCP4 10.1.2.3 10.0.0.1 54321 5346"), client("10.1.2.3"));
        assert_eq!(named("PROXY TCP6 2001:db8::7 ::1 1 65535"), client("2001:db8::7"));
        assert_eq!(named("PROXY TCP6 ::ffff:10.1.2.3 ::1 1 2"), client("10.1.2.3"));
        assert_eq!(named("PROXY UNKNOWN"), Ok(Some(None)));
        assert_eq!(named("PROXY UNKNOWN what ever 1 2"), Ok(Some(None)));
        let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
        assert_eq!(named(&format!("{longest:<105}")), Ok(Some(None)));
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        let lines = [
            "PROXY TCP4 10.1.2.3 10.0.0.1 54321",
            "PROXY TCP4 10.1.2.3 10.0.0.1 54321 5346 7",
            "PROXY TCP4 10.1.2.3  10.0.0.1 54321 5346",
            "PROXY TCP4 10.1.2.3 10.0.0.1 054321 5346",
            "PROXY TCP4 10.1.2.3 10.0.0.1 65536 5346",
            "PROXY TCP4 10.1.2.3 10.0.0.1 +1 5346",
            "PROXY TCP4 ::1 10.0.0.1 1 5346",
            "PROXY TCP6 ::1 10.0.0.1 1 5346",
            "PROXY TCP4 10.1.2 10.0.0.1 1 5346",
            "PROXY UDP4 10.1.2.3 10.0.0.1 1 5346",
            "PROXY  TCP4 10.1.2.3 10.0.0.1 1 5346",
            "proxy TCP4 10.1.2.3 10.0.0.1 1 5346",
            "PROXY",
            "GET / HTTP/1.1",
        ];
        for line in lines {
            assert_eq!(taken(format!("{line}\r\n").as_bytes()), Err(Refusal::ProxyHeader), "{line}");
        }
        assert_eq!(taken(b"PROXY UNKNOWN\n"), Err(Refusal::ProxyHeader));
        assert_eq!(taken(format!("{:<106}\r\n", "PROXY UNKNOWN").as_bytes()), Err(Refusal::ProxyHeader));
    }

    #[test]
    fn a_header_of_version_2_names_the_client() {
        let v4 = [10, 1, 2, 3, 10, 0, 0, 1, 0xd4, 0x31, 0x14, 0xe2];
        let client = Ok(Some(Some("10.1.2.3".parse().unwrap())));
        assert_eq!(taken(&v2(0x21, 0x11, &v4)), client);
        assert_eq!(taken(&v2(0x21, 0x11, &[&v4[..], &[4; 700]].concat())), client, "TLVs are skipped");
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(taken(&v2(0x21, 0x21, &v6)), Ok(Some(Some("2001:db8::7".parse().unwrap()))));
        assert_eq!(taken(&v2(0x20, 0x00, &[])), Ok(Some(None)), "the proxy's own");
        assert_eq!(taken(&v2(0x20, 0x11, &v4)), Ok(Some(None)), "the proxy's own, whatever it says");
        assert_eq!(taken(&v2(0x21, 0x00, &[1; 5])), Ok(Some(None)), "unknown");
        assert_eq!(taken(&v2(0x21, 0x31, &[1; 216])), Ok(Some(None)), "a UNIX socket");
        assert_eq!(taken(&v2(0x21, 0x11, &[7; u16::MAX as usize])), Ok(Some(Some([7, 7, 7, 7].into()))));
    }

    #[test]
    fn a_header_of_version_2_that_is_none_is_refused() {
        for (command, family, len) in [(0x11, 0x11, 12), (0x22, 0x11, 12), (0x21, 0x11, 11), (0x21, 0x21, 35)]
        {
            assert_eq!(taken(&v2(command, family, &vec![1; len])), Err(Refusal::ProxyHeader));
        }
        let mut wrong = v2(0x21, 0x11, &[0; 12]);
        wrong[11] = b'\r';
        assert_eq!(taken(&wrong), Err(Refusal::ProxyHeader));
    }

    #[test]
    fn a_stranger_is_known_by_how_it_begins() {
        let v2 = v2(0x21, 0x11, &[]);
        for (bytes, whole) in [(&b"PROXY TCP4"[..], WORD.len()), (&v2[..], SIGNATURE.len())] {
            for len in 0..bytes.len() {
                let want = if len < whole { Begins::Perhaps } else { Begins::Yes };
                assert_eq!(begins(&bytes[..len]), want, "{len}");
            }
        }
        for bytes in [&b"POST"[..], b"GET / HTTP/1.1\r\n", b"SF\0\0\x03\xe9", b"\r\n\r\nG"] {
            assert_eq!(begins(bytes), Begins::No, "{bytes:?}");
        }
    }
}
