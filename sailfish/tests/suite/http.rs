//! Both HTTP ports of a node with a backend: what callers may hold, and that nobody takes files that are
//! others'.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::common::{Folder, PATIENCE, SECRET, Server, http, until};

/// A node with a backend that may open so many files.
struct Up {
    server: Server,
    api: SocketAddr,
    _folder: Folder,
}

impl Up {
    fn start(files: u32, settings: &[&str]) -> Self {
        let folder = Folder::new("http");
        let mut shell = Command::new("sh");
        let line = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_sailfish"), "up", "--shards=2"]);
        shell.args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--set=backend.listen=127.0.0.1:0"]);
        shell.args([&format!("--set=token.secret={SECRET}"), "--set=limits.address_connections_max=100000"]);
        shell.args(settings.iter().map(|setting| format!("--set={setting}")));
        let server = Server::spawn(shell.env("XDG_STATE_HOME", &folder.0));
        let address = server.stdout.lines().next().unwrap().rsplit_once("backend=").unwrap().1;
        Self { api: address.parse().unwrap(), server, _folder: folder }
    }

    fn ports(&self) -> [SocketAddr; 2] {
        [self.server.admin, self.api]
    }

    /// The sum of a metric over the samples with this label, of each port.
    fn metric(&self, port: SocketAddr, name: &str, label: &str) -> f64 {
        let page = get(port, "/metrics").1;
        let samples = page.lines().filter(|line| {
            let of = line.strip_prefix("sailfish_backend_").or(line.strip_prefix("sailfish_"));
            of.is_some_and(|line| line.starts_with(name) && line.contains(label))
        });
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }
}

fn get(port: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = http(port, &format!("GET {path} HTTP/1.1\r\n"), "");
    (status, body)
}

fn connect(port: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(text.as_bytes()); // it may be refused already
    stream
}

/// What comes until the server closes; empty if it resets the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("it is not closed: {error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

#[test]
fn silent_callers_take_no_file_of_a_client() {
    let up = Up::start(700, &["http.header_timeout_ms=3000"]);
    let mut silent = Vec::new();
    for port in up.ports() {
        for at in 0..500 {
            let text = if at % 2 == 0 { "" } else { "GET /healthz HTTP/1.1\r\nX-" };
            silent.push(connect(port, text));
        }
    }
    let clients: Vec<_> = (1..=20).map(|user| up.server.login(user)).collect();
    for port in up.ports() {
        assert_eq!(get(port, "/healthz").0, 200);
        let open = up.metric(port, "http_connections", "");
        assert!(open <= 700.0 / 16.0, "{open} connections are open");
        assert!(up.metric(port, "http_cut_total", "\"evicted\"") > 400.0);
        assert_eq!(up.metric(port, "http_accept_errors_total", ""), 0.0);
    }
    for stream in &mut silent {
        assert_eq!(rest(stream), "");
    }
    for port in up.ports() {
        assert!(up.metric(port, "http_cut_total", "\"header\"") > 0.0);
    }
    drop(clients);
}

#[test]
fn clients_take_no_file_of_an_http_port_or_of_the_database() {
    clients_take_no_file_of_others("epoll");
}

#[test]
fn more_clients_than_files_take_none_of_others() {
    clients_take_no_file_of_others("auto");
}

fn clients_take_no_file_of_others(engine: &str) {
    let engine = format!("node.engine={engine}");
    let up = Up::start(700, &["limits.login_deadline_ms=60000", "backend.mock=true", &engine]);
    let files = || up.server.metric("process_open_fds", "");
    let clients: Vec<TcpStream> = (0..900).map(|_| connect(up.server.clients, "")).collect();
    if up.server.stdout.contains("engine=uring ") {
        until("everybody has a place", || up.server.metric("sailfish_connections", "") >= 900.0);
        assert_eq!(up.server.metric("sailfish_notices_total", "server_full"), 0.0);
    } else {
        until("those past the limit are refused", || {
            up.server.metric("sailfish_notices_total", "server_full") >= 100.0
        });
    }
    for port in up.ports() {
        // As many as one address may have.
        let mut callers: Vec<TcpStream> = (0..20).map(|_| connect(port, "")).collect();
        for caller in &mut callers {
            caller
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .unwrap();
            assert!(rest(caller).starts_with("HTTP/1.1 200"));
        }
        assert_eq!(up.metric(port, "http_accept_errors_total", ""), 0.0);
    }
    // Many at a time want the database, whose pool opens files as it grows.
    let logins: Vec<TcpStream> = (0..20)
        .map(|at| {
            let body = format!(r#"{{"phone":"+86138000000{at:02}"}}"#);
            let head =
                "POST /login/code HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json";
            connect(up.api, &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        })
        .collect();
    for mut login in logins {
        let answer = rest(&mut login);
        assert!(!answer.is_empty() && !answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    assert!(files() < 700.0, "{} files", files());
    drop(clients);
}

#[test]
fn each_port_has_a_time_for_everything() {
    let up = Up::start(
        10_000,
        &["http.header_timeout_ms=500", "http.idle_timeout_ms=500", "http.body_timeout_ms=500"],
    );
    let json = "HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for (port, path) in [(up.server.admin, "/v1/kick"), (up.api, "/login")] {
        let mut silent = connect(port, "");
        let mut half = connect(port, "GET /healthz HTTP/1.1\r\nX-");
        let mut slow = connect(port, &format!("POST {path} {json}Content-Length: 9\r\n\r\n{{"));
        let mut idle = connect(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((rest(&mut silent), rest(&mut half)), (String::new(), String::new()));
        let answer = rest(&mut slow);
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
        let answer = rest(&mut idle);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
        let cut = |reason: &str| up.metric(port, "http_cut_total", &format!("{reason:?}"));
        assert_eq!((cut("header"), cut("body")), (2.0, 1.0));
        until("the connections have gone", || cut("idle") >= 1.0);
    }
}

#[test]
fn a_caller_that_has_said_all_gets_its_answer() {
    let up = Up::start(10_000, &[]);
    for port in up.ports() {
        let mut caller = connect(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        caller.shutdown(Shutdown::Write).unwrap();
        let answer = rest(&mut caller);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // A push whose receiver is not there takes its time.
    let body = r#"{"app":1,"user":77,"biz_code":6001,"data":"x","wait_ms":300}"#;
    let head = "POST /v1/push/user HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut caller = connect(up.server.admin, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    caller.shutdown(Shutdown::Write).unwrap();
    let answer = rest(&mut caller);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("outcome"), "{answer}");
}

#[test]
fn each_route_refuses_what_is_too_long_before_it_comes() {
    let up = Up::start(10_000, &["control.secret=the secret of the admin port"]);
    let json = "Host: localhost\r\nContent-Type: application/json\r\n";
    let bearer = "Authorization: Bearer the secret of the admin port\r\n";
    for (port, path, more, bytes_max) in [
        (up.server.admin, "/v1/kick", bearer, 64 << 10),
        (up.server.admin, "/v1/push", bearer, 2 << 20),
        (up.api, "/login", "", 1 << 10),
        (up.api, "/login/code", "", 1 << 10),
        (up.api, "/payment/callback/default", "", 16 << 10),
        (up.api, "/bridge/events", "", 2 << 20),
    ] {
        // Nothing of the body is sent; who waited for it would wait for ten seconds.
        let length = bytes_max + 1;
        let mut caller =
            connect(port, &format!("POST {path} HTTP/1.1\r\n{json}{more}Content-Length: {length}\r\n\r\n"));
        let answer = rest(&mut caller);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains(&format!("at most {bytes_max} bytes")), "{path}: {answer}");
        let head = format!("POST {path} HTTP/1.1\r\n{json}{more}Transfer-Encoding: chunked\r\n\r\n");
        let mut caller = connect(port, &head);
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1_024));
        for _ in 0..=bytes_max / 1_024 {
            let _ = caller.write_all(chunk.as_bytes()); // it may have been answered
        }
        let answer = rest(&mut caller);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
    // Who does not know a secret is told so before the body.
    for (port, path) in [(up.server.admin, "/v1/push"), (up.api, "/internal/wallet/grants")] {
        let mut caller =
            connect(port, &format!("POST {path} HTTP/1.1\r\n{json}Content-Length: 1000\r\n\r\n"));
        let answer = rest(&mut caller);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
        assert_eq!(up.metric(port, "http_bodies_bytes", ""), 0.0);
    }
}

#[test]
fn bodies_that_are_held_back_take_a_share_of_memory() {
    let up = Up::start(10_000, &[]);
    let length = 2 << 20;
    let held_back = "x".repeat(length - 1);
    let head = format!("POST /bridge/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    let mut callers: Vec<TcpStream> = (0..40).map(|_| connect(up.api, &head)).collect();
    for caller in &mut callers {
        caller.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = caller.write_all(held_back.as_bytes()); // it may have been answered
    }
    until("the share of one address is taken", || {
        up.metric(up.api, "http_refused_total", "\"address_bodies\"") >= 32.0
    });
    let held = up.metric(up.api, "http_bodies_bytes", "");
    assert!(held <= f64::from(16 << 20), "{held} bytes");
    // Which of them have the share is chance.
    let is_refused = |caller: &TcpStream| {
        caller.set_nonblocking(true).unwrap();
        let mut start = [0; 13];
        let heard = caller.peek(&mut start);
        caller.set_nonblocking(false).unwrap();
        heard.is_ok() && start == *b"HTTP/1.1 503 "
    };
    until("one of the others hears so", || callers.iter().any(is_refused));
    let at = callers.iter().position(is_refused).unwrap();
    let answer = rest(&mut callers.swap_remove(at));
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.to_lowercase().contains("retry-after: 1"),
        "{answer}"
    );
    drop(callers);
    until("all is given back", || up.metric(up.api, "http_bodies_bytes", "") == 0.0);
}
