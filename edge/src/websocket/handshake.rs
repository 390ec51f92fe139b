//! The opening handshake: an HTTP request becomes a WebSocket connection, or gets an answer that says why
//! not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{Request, Status};
use sha1::{Digest, Sha1};

use super::{Opened, java};
use crate::proxy::{Begins, begins};
use crate::{Form, Refusal, Rules};

/// The longest head of a request: a browser's cookies fit.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields of a head.
const FIELDS_MAX: usize = 64;
/// RFC 6455, section 1.3: what a key is hashed with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// A request of which not everything has arrived.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    head: Vec<u8>,
}

impl Handshake {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.head.capacity()
    }

    /// Takes the head off the front of `input`, and writes the answer to `out`; `None` while some of it is
    /// missing.
    pub(crate) fn take(
        &mut self,
        input: &mut &[u8],
        rules: &Rules,
        out: &mut Vec<u8>,
    ) -> Result<Option<Opened>, Refusal> {
        let outcome = self.look(input).and_then(|head| match head {
            Some(head) => upgrade(&head, rules, out).map(Some),
            None => Ok(None),
        });
        match &outcome {
            Ok(_) | Err(Refusal::ProxyStranger) => {} // a proxy of another protocol reads no HTTP
            Err(refusal) => refuse(*refusal, out),
        }
        outcome
    }

    /// There is no room for a head that is not whole.
    pub(crate) fn refuse_busy(&mut self, out: &mut Vec<u8>) {
        self.head = Vec::new();
        refuse(Refusal::HttpBusy, out);
    }

    /// The whole head, once it is there.
    fn look(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let before = self.head.len();
        let taken = input.len().min(HEAD_BYTES_MAX - before);
        let from = before.saturating_sub(END.len() - 1);
        let wanted = before + taken;
        if wanted > self.head.capacity() {
            let capacity = wanted.max(2 * self.head.capacity()).min(HEAD_BYTES_MAX);
            self.head.reserve_exact(capacity - before);
        }
        self.head.extend_from_slice(&input[..taken]);
        match begins(&self.head) {
            Begins::Yes => return Err(Refusal::ProxyStranger),
            Begins::Perhaps => {
                *input = &input[taken..];
                return Ok(None);
            }
            // It was kept as what may become a PROXY header.
            Begins::No if self.head.starts_with(END) => return Err(Refusal::HttpMalformed),
            Begins::No => {}
        }
        let end = self.head[from..].windows(END.len()).position(|window| window == END);
        if let Some(end) = end {
            let len = from + end + END.len();
            *input = &input[len - before..];
            self.head.truncate(len);
            return Ok(Some(std::mem::take(&mut self.head)));
        }
        *input = &input[taken..];
        // With each piece, so that what is no HTTP is refused at its first byte. A head in single bytes costs
        // no more than to receive it.
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        Request::new(&mut fields).parse(&self.head).map_err(of_parser)?;
        if self.head.len() == HEAD_BYTES_MAX {
            return Err(Refusal::HttpTooLong);
        }
        Ok(None)
    }
}

fn of_parser(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HttpTooLong,
        _ => Refusal::HttpMalformed,
    }
}

/// Checks a head as RFC 6455, section 4.2.1, wants, and accepts it.
fn upgrade(head: &[u8], rules: &Rules, out: &mut Vec<u8>) -> Result<Opened, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    let Status::Complete(_) = request.parse(head).map_err(of_parser)? else {
        return Err(Refusal::HttpMalformed); // an empty line before the request
    };
    let fields = Fields(request.headers);
    let is_upgrade = fields.has_token("upgrade", "websocket") && fields.has_token("connection", "upgrade");
    if request.method != Some("GET") || !is_upgrade {
        return Err(Refusal::HttpNoUpgrade);
    }
    if fields.one("sec-websocket-version")? != Some(b"13") {
        return Err(Refusal::HttpVersion);
    }
    let key = fields.one("sec-websocket-key")?.ok_or(Refusal::HttpBadUpgrade)?;
    let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    // A body would be taken for frames.
    let has_body = fields.all("transfer-encoding").next().is_some()
        || fields.all("content-length").any(|len| len != b"0");
    if request.version != Some(1) || !is_key || has_body || fields.one("host")?.is_none() {
        return Err(Refusal::HttpBadUpgrade);
    }
    if let Some(origin) = fields.one("origin")?
        && !rules.allows_origin(origin)
    {
        return Err(Refusal::HttpOrigin);
    }
    let offered = subprotocol(&fields)?;
    let opened = match offered {
        Some(form) => Opened { form, login: None },
        None => java::login(request.path.unwrap_or_default())?
            .unwrap_or(Opened { form: Form::Binary, login: None }),
    };
    accept(key, offered, out);
    Ok(opened)
}

/// The first subprotocol offered that is known here; `None` if none is offered.
fn subprotocol(fields: &Fields<'_>) -> Result<Option<Form>, Refusal> {
    let mut offered = fields.tokens("sec-websocket-protocol").peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let known = offered.find_map(|name| Form::ALL.into_iter().find(|form| form.subprotocol() == Some(name)));
    known.map(Some).ok_or(Refusal::HttpSubprotocol)
}

fn accept(key: &[u8], form: Option<Form>, out: &mut Vec<u8>) {
    let accept = accept_of(key);
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    if let Some(name) = form.and_then(Form::subprotocol) {
        out.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(END);
}

/// What a key is answered with.
pub(crate) fn accept_of(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Writes what a request gets that is no upgrade, or one that is refused.
fn refuse(refusal: Refusal, out: &mut Vec<u8>) {
    const WHERE: &str = "this port speaks WebSocket (RFC 6455, version 13), with the subprotocol sailfish.v1.binary or \
                         sailfish.v1.json, as Sailfish's docs/PROTOCOL.md says";
    let (status, field, text) = match refusal {
        Refusal::HttpNoUpgrade => {
            ("426 Upgrade Required", "upgrade: websocket\r\n", "nothing else than WebSocket is served here")
        }
        Refusal::HttpVersion => ("426 Upgrade Required", "sec-websocket-version: 13\r\n", "not version 13"),
        Refusal::HttpTooLong => {
            ("431 Request Header Fields Too Large", "", "the head of the request is too long")
        }
        Refusal::HttpOrigin => ("403 Forbidden", "", "pages of this origin may not connect"),
        Refusal::HttpSubprotocol => ("400 Bad Request", "", "no subprotocol that is known here"),
        Refusal::HttpBusy => ("503 Service Unavailable", "", "too many unfinished requests"),
        Refusal::HttpJavaPath => ("400 Bad Request", "", "a path with a token has the code 1001"),
        _ => ("400 Bad Request", "", "no request to upgrade to WebSocket"),
    };
    answer(status, field, &format!("{text}; {WHERE}\n"), out);
}

/// Writes an answer of HTTP, after which the connection closes.
pub(crate) fn answer(status: &str, field: &str, text: &str, out: &mut Vec<u8>) {
    let connection = if field.starts_with("upgrade") { "Upgrade, close" } else { "close" };
    let len = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\n{field}connection: {connection}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {len}\r\n\r\n{text}"
    );
    out.extend_from_slice(answer.as_bytes());
}

/// The fields of a head.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of all fields of a name, without the space around them.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii())
    }

    /// The value of a field that may stand once.
    fn one(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(Refusal::HttpBadUpgrade) } else { Ok(first) }
    }

    /// The members of a list in fields of a name.
    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let lists = self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        lists.flat_map(|list| list.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.tokens(name).any(|one| one.eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Login;
    use super::*;

    const FIELDS: &str = "Host: im.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn rules() -> Rules {
        Rules { origins: vec!["https://chat.example".into()], ..Rules::default() }
    }

    /// What comes of a request in two reads, at every split, with bytes after it; and the answer.
    fn upgraded(request: &str) -> (Result<Option<Form>, Refusal>, String) {
        let (outcome, answer) = opened(request);
        (outcome.map(|opened| opened.map(|opened| opened.form)), answer)
    }

    fn opened(request: &str) -> (Result<Option<Opened>, Refusal>, String) {
        let whole = [request.as_bytes(), b"\x82\x80"].concat();
        let outcomes: Vec<_> = (0..=whole.len()).map(|split| in_two(&whole, split)).collect();
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        outcomes[0].clone()
    }

    fn in_two(whole: &[u8], split: usize) -> (Result<Option<Opened>, Refusal>, String) {
        let (mut handshake, mut out) = (Handshake::default(), Vec::new());
        let (mut first, second) = whole.split_at(split);
        let mut outcome = handshake.take(&mut first, &rules(), &mut out);
        let mut rest = [first, second].concat();
        if outcome == Ok(None) {
            let mut input = &rest[..];
            outcome = handshake.take(&mut input, &rules(), &mut out);
            rest = input.to_vec();
        }
        if outcome.is_ok() {
            assert_eq!((&rest[..], handshake.bytes()), (&b"\x82\x80"[..], 0), "split at {split}");
        }
        (outcome, String::from_utf8(out).unwrap())
    }

    fn request(fields: &str) -> String {
        format!("GET /chat?a=b HTTP/1.1\r\n{fields}\r\n")
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let (form, answer) = upgraded(&request(FIELDS));
        assert_eq!(form, Ok(Some(Form::Binary)));
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        for (offered, form) in [
            ("Sec-WebSocket-Protocol: sailfish.v1.json\r\n", Form::Json),
            ("Sec-WebSocket-Protocol: mqtt, sailfish.v1.binary , sailfish.v1.json\r\n", Form::Binary),
            ("sec-websocket-protocol: mqtt\r\nsec-websocket-protocol: sailfish.v1.json\r\n", Form::Json),
        ] {
            let (outcome, answer) = upgraded(&request(&format!("{FIELDS}{offered}")));
            assert_eq!(outcome, Ok(Some(form)), "{offered}");
            let wanted = format!("\r\nsec-websocket-protocol: {}\r\n\r\n", form.subprotocol().unwrap());
            assert!(answer.ends_with(&wanted), "{answer}");
        }
    }

    #[test]
    fn a_path_of_the_java_platform_is_its_form_unless_a_subprotocol_is_offered() {
        let java = request(FIELDS).replacen("/chat?a=b", "/t.k.n/10001/1001/7", 1);
        let (outcome, answer) = opened(&java);
        let login = Some(Login { token: "t.k.n".into(), room: Some(7) });
        assert_eq!(outcome, Ok(Some(Opened { form: Form::Java, login })));
        assert!(!answer.contains("protocol"), "{answer}");
        let offered = java.replacen("Host:", "Sec-WebSocket-Protocol: sailfish.v1.json\r\nHost:", 1);
        assert_eq!(opened(&offered).0, Ok(Some(Opened { form: Form::Json, login: None })));
        let (outcome, answer) = opened(&java.replacen("1001", "1003", 1));
        assert_eq!(outcome, Err(Refusal::HttpJavaPath));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[test]
    fn an_origin_must_be_in_the_list() {
        let with = |origin: &str| upgraded(&request(&format!("{FIELDS}Origin: {origin}\r\n")));
        assert_eq!(with("https://chat.example").0, Ok(Some(Form::Binary)));
        assert_eq!(with("HTTPS://Chat.Example").0, Ok(Some(Form::Binary)));
        for wrong in ["https://chat.example.evil", "http://chat.example", "null", "https://chat.example:444"]
        {
            let (outcome, answer) = with(wrong);
            assert_eq!(outcome, Err(Refusal::HttpOrigin), "{wrong}");
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
    }

    #[test]
    fn what_is_no_upgrade_gets_an_answer_that_says_where_to_look() {
        let (outcome, answer) = upgraded("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome, Err(Refusal::HttpNoUpgrade));
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\n"), "{answer}");
        assert!(answer.contains("docs/PROTOCOL.md"), "{answer}");
        let post = request(FIELDS).replacen("GET", "POST", 1);
        assert_eq!(upgraded(&post).0, Err(Refusal::HttpNoUpgrade));
    }

    #[test]
    fn each_check_of_the_rfc_refuses() {
        let changed = |from: &str, to: &str| {
            let (outcome, answer) = upgraded(&request(&FIELDS.replacen(from, to, 1)));
            (outcome.unwrap_err(), answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap())
        };
        use Refusal::*;
        assert_eq!(changed("Host: im.example\r\n", ""), (HttpBadUpgrade, 400));
        assert_eq!(changed("Host:", "Host: a\r\nHost:"), (HttpBadUpgrade, 400));
        assert_eq!(changed("Upgrade: websocket", "Upgrade: h2c"), (HttpNoUpgrade, 426));
        assert_eq!(changed("keep-alive, Upgrade", "keep-alive"), (HttpNoUpgrade, 426));
        assert_eq!(changed("Version: 13", "Version: 8"), (HttpVersion, 426));
        assert_eq!(changed("Sec-WebSocket-Version: 13\r\n", ""), (HttpVersion, 426));
        assert_eq!(changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), (HttpBadUpgrade, 400));
        assert_eq!(changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), (HttpBadUpgrade, 400));
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(changed(key, ""), (HttpBadUpgrade, 400));
        assert_eq!(changed(key, &key.repeat(2)), (HttpBadUpgrade, 400));
        assert_eq!(changed("Host:", "Content-Length: 5\r\nHost:"), (HttpBadUpgrade, 400));
        assert_eq!(changed("Host:", "Transfer-Encoding: chunked\r\nHost:"), (HttpBadUpgrade, 400));
        let mqtt = "Sec-WebSocket-Protocol: mqtt\r\nHost:";
        assert_eq!(changed("Host:", mqtt), (HttpSubprotocol, 400));
        let old = request(FIELDS).replacen("HTTP/1.1", "HTTP/1.0", 1);
        assert_eq!(upgraded(&old).0, Err(HttpBadUpgrade));
    }

    #[test]
    fn what_is_no_http_is_refused_at_its_first_byte() {
        for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"\x48\xf5\0\0\x03\xe9", b"SF\0\0\x03\xe9", b"\r\n\r\nG"]
        {
            let (mut handshake, mut out) = (Handshake::default(), Vec::new());
            let outcome = handshake.take(&mut &bytes[..], &rules(), &mut out);
            assert_eq!(outcome, Err(Refusal::HttpMalformed), "{bytes:x?}");
            assert!(out.starts_with(b"HTTP/1.1 400 "));
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let long = request(&format!("{FIELDS}Cookie: {}\r\n", "a".repeat(HEAD_BYTES_MAX)));
        let (mut handshake, mut out) = (Handshake::default(), Vec::new());
        for chunk in long.as_bytes().chunks(1000) {
            let outcome = handshake.take(&mut &chunk[..], &rules(), &mut out);
            assert!(handshake.bytes() <= HEAD_BYTES_MAX);
            if outcome.is_err() {
                assert_eq!(outcome, Err(Refusal::HttpTooLong));
                return assert!(out.starts_with(b"HTTP/1.1 431 "));
            }
        }
        panic!("it was taken");
    }

    #[test]
    fn many_fields_and_a_full_shard_are_refused() {
        let many = request(&format!("{FIELDS}{}", "a: b\r\n".repeat(FIELDS_MAX)));
        let (mut handshake, mut out) = (Handshake::default(), Vec::new());
        let outcome = handshake.take(&mut many.as_bytes(), &rules(), &mut out);
        assert_eq!(outcome, Err(Refusal::HttpTooLong));
        let mut out = Vec::new();
        handshake.refuse_busy(&mut out);
        assert!(out.starts_with(b"HTTP/1.1 503 ") && handshake.bytes() == 0);
    }

    #[test]
    fn single_bytes_are_taken() {
        let (mut handshake, mut out) = (Handshake::default(), Vec::new());
        let request = request(FIELDS);
        let taken: Vec<_> = request
            .bytes()
            .map(|byte| handshake.take(&mut &[byte][..], &rules(), &mut out).unwrap())
            .collect();
        assert_eq!(taken.iter().flatten().count(), 1);
        assert_eq!(taken.last(), Some(&Some(Opened { form: Form::Binary, login: None })));
    }
}
