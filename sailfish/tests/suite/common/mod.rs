//! A server of one test, and a client that says what it is told to.

pub mod backend;
pub mod cluster;
pub mod java;
pub mod proxy;
pub mod stack;
pub mod storm;
pub mod terminal;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway::{Claims, mint_hs256};
use rustix::process::{Pid, Signal, kill_process};
use wire::client::{
    AckIds, Business, ClientFrame, Deframer, Encoding, Message, NoticeCode, Outcome, SendAck, ServerFrame,
};
use wire::{AppId, BizCode, DeviceClass, MessageId, RoomId, UserId};

/// What all servers of the tests sign tokens with.
pub const SECRET: &str = "the secret of the tests";
/// The app of all users.
pub const APP: AppId = AppId(1);
/// How long anything may take; machines are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, with nothing of the caller's environment that it reads.
pub fn sailfish() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sailfish"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SAILFISH_") {
            command.env_remove(name);
        }
    }
    // A backend within `up` keeps its state in the caller's home; who wants one says so.
    command.env("SAILFISH_BRIDGE__MODE", "off");
    command
}

/// Runs a program in a folder of the workspace, with the binary in `SAILFISH`. It must succeed.
pub fn run(folder: &str, program: &str, arguments: &[&str]) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sailfish/ lies in the workspace");
    let output = Command::new(program)
        .args(arguments)
        .current_dir(workspace.join(folder))
        .env("SAILFISH", env!("CARGO_BIN_EXE_sailfish"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask ci` installs it"));
    let line = format!("{program} {}", arguments.join(" "));
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{line} ended with {}\n{stdout}\n{stderr}", output.status);
}

/// A running node; killed when dropped.
pub struct Server {
    child: Child,
    /// Where clients connect; of a router, where links are taken.
    pub clients: SocketAddr,
    pub admin: SocketAddr,
    /// Where clients connect by WebSocket, if anywhere.
    pub websocket: Option<SocketAddr>,
    /// Everything it printed up to the line that tells how to end it.
    pub stdout: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server on free ports, with two shards and the secret of the tests.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = sailfish();
        command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--set", &format!("token.secret={SECRET}")]);
        if !arguments.contains(&"--shards") {
            command.args(["--shards", "2"]);
        }
        Self::spawn(command.args(arguments))
    }

    /// Starts a server by a whole command.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, copy) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let mut stdout = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            stdout.push_str(&format!("{line}\n"));
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let word = |name: &str| {
            let first = stdout.lines().next().filter(|line| line.starts_with("ready "));
            let found = first.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix(name)));
            found.and_then(|address| address.parse().ok())
        };
        // A router has no clients; links connect there. A backend has its API for all.
        let api = word("api=http://");
        let clients = word("clients=").or(word("links=")).or(api);
        let (Some(clients), Some(admin)) = (clients, word("admin=").or(api)) else {
            panic!("not ready: {stdout}{}", log.lock().unwrap());
        };
        let websocket = word("websocket=");
        Self { child, clients, admin, websocket, stdout, log }
    }

    /// Where a port is that has a name of its own in the line for programs.
    pub fn port(&self, name: &str) -> SocketAddr {
        let mut words = self.stdout.lines().next().unwrap().split(' ');
        let address = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        address.unwrap_or_else(|| panic!("no {name}: {}", self.stdout)).parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Status and body of a GET on the admin port.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.http(&format!("GET {path} HTTP/1.1\r\n"), "");
        (status, body)
    }

    /// Status and JSON of a POST on the admin port.
    pub fn post(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        let (status, _, body) = self.http(&head, body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path} answered {body}")))
    }

    /// Status, head and body of the answer to a request on the admin port; its head lacks what is the same in
    /// all.
    pub fn http(&self, head: &str, body: &str) -> (u16, String, String) {
        http(self.admin, head, body)
    }

    /// The sum of a metric over its samples whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200);
        let samples = page.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
            let rest = series.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{') && rest.contains(labels))
        });
        samples.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.clients)
    }

    /// A logged-in client that speaks binary.
    pub fn login(&self, user: i64) -> Client {
        self.login_as(user, Encoding::Binary)
    }

    pub fn login_as(&self, user: i64, encoding: Encoding) -> Client {
        let mut client = self.connect();
        client.encoding = encoding;
        client.login(user);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Status, head and body of the answer to a request; its head lacks what is the same in all.
pub fn http(address: SocketAddr, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let host = if head.contains("\r\nHost: ") { String::new() } else { format!("Host: {address}\r\n") };
    let head = format!("{head}{host}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body.as_bytes()); // what is refused is not read
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

/// A folder of one test, removed at its end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{name}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // only litter
    }
}

/// Runs a command to its end, `input` on its stdin.
pub fn output(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have ended
    child.wait_with_output().unwrap()
}

/// A token of the tests' secret.
pub fn token(user: i64, expires_in_secs: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let exp = now.saturating_add_signed(expires_in_secs);
    mint_hs256(SECRET.as_bytes(), &Claims { app: APP, user: UserId(user), device: DeviceClass::Phone, exp })
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Polls until `done`, for as long as patience lasts.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection. Does nothing by itself: no acks, no heartbeats.
pub struct Client {
    pub stream: TcpStream,
    pub encoding: Encoding,
    pub user: UserId,
    deframer: Deframer,
    heard: VecDeque<ServerFrame<'static>>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            encoding: Encoding::Binary,
            user: UserId(0),
            deframer: Deframer::default(),
            heard: VecDeque::new(),
        }
    }

    /// Logs in and waits for the answer.
    pub fn login(&mut self, user: i64) {
        self.user = UserId(user);
        self.send_login(&token(user, 3_600));
        match self.next() {
            Some(ServerFrame::LoggedIn { .. }) => {}
            other => panic!("instead of logged in: {other:?}"),
        }
    }

    pub fn send_login(&mut self, token: &str) {
        self.send(&ClientFrame::Login { token: token.into() });
    }

    pub fn send(&mut self, frame: &ClientFrame<'_>) {
        let bytes = self.encoded(frame);
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn encoded(&self, frame: &ClientFrame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(self.encoding, APP, self.user, &mut bytes);
        bytes
    }

    /// Sends a message with a name, without waiting.
    pub fn say(&mut self, biz_code: i32, target: i64, client_msg_id: &str, payload: &str) {
        self.send(&ClientFrame::Business(Business {
            biz_code: BizCode(biz_code),
            target,
            client_msg_id: client_msg_id.into(),
            payload: payload.as_bytes().into(),
        }));
    }

    pub fn ack(&mut self, id: MessageId) {
        self.send(&ClientFrame::Ack(AckIds::One(id)));
    }

    pub fn join(&mut self, room: i64) {
        self.send(&ClientFrame::Join { room: RoomId(room), want: None });
        match self.next() {
            Some(ServerFrame::Joined { room: joined, .. }) => assert_eq!(joined, RoomId(room)),
            other => panic!("instead of joined: {other:?}"),
        }
    }

    /// The next frame; `None` when the server has closed.
    pub fn next(&mut self) -> Option<ServerFrame<'static>> {
        let mut buffer = [0; 16 * 1024];
        while self.heard.is_empty() {
            let mut bytes = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            };
            while let Some(frame) = self.deframer.next(&mut bytes, 1 << 20).unwrap() {
                self.heard.push_back(ServerFrame::decode(&frame).unwrap().into_owned());
            }
        }
        self.heard.pop_front()
    }

    /// The next message, whatever heartbeats and messages are answered in between.
    pub fn message_beside_answers(&mut self) -> Message {
        loop {
            match self.next() {
                Some(ServerFrame::Heartbeat { .. } | ServerFrame::SendAck(_)) => {}
                Some(ServerFrame::Deliver(message)) => return message.into_owned(),
                other => panic!("instead of a message: {other:?}"),
            }
        }
    }

    /// The next send-ack, whatever heartbeats are answered in between.
    pub fn send_ack_beside_heartbeats(&mut self) -> SendAck {
        loop {
            match self.next() {
                Some(ServerFrame::Heartbeat { .. }) => {}
                Some(ServerFrame::SendAck(ack)) => return ack,
                other => panic!("instead of a send-ack: {other:?}"),
            }
        }
    }

    pub fn message(&mut self) -> Message {
        match self.next() {
            Some(ServerFrame::Deliver(message)) => message.into_owned(),
            other => panic!("instead of a message: {other:?}"),
        }
    }

    pub fn send_ack(&mut self) -> SendAck {
        match self.next() {
            Some(ServerFrame::SendAck(ack)) => ack,
            other => panic!("instead of a send-ack: {other:?}"),
        }
    }

    pub fn outcome(&mut self, client_msg_id: &str) -> Outcome {
        let ack = self.send_ack();
        assert_eq!(ack.client_msg_id.as_str(), client_msg_id);
        ack.outcome
    }

    /// The same, whatever messages come in between.
    pub fn outcome_beside_messages(&mut self, client_msg_id: &str) -> Outcome {
        loop {
            match self.next() {
                Some(ServerFrame::Deliver(_)) => {}
                Some(ServerFrame::SendAck(ack)) if ack.client_msg_id.as_str() == client_msg_id => {
                    return ack.outcome;
                }
                other => panic!("instead of a send-ack for {client_msg_id}: {other:?}"),
            }
        }
    }

    pub fn heartbeat(&mut self) {
        self.send(&ClientFrame::Heartbeat { echo: &[] });
        assert_eq!(self.next(), Some(ServerFrame::Heartbeat { echo: &[] }));
    }

    /// Waits until the server has heard all that was said.
    pub fn heartbeat_beside_messages(&mut self) {
        self.send(&ClientFrame::Heartbeat { echo: &[] });
        while self.next() != Some(ServerFrame::Heartbeat { echo: &[] }) {}
    }

    /// The next frame is this notice, and then the server closes.
    pub fn expect_farewell(&mut self, wanted: NoticeCode) {
        match self.next() {
            Some(ServerFrame::Notice { code, text, .. }) => {
                assert_eq!(code, wanted);
                assert!(!text.is_empty());
            }
            other => panic!("instead of notice {wanted:?}: {other:?}"),
        }
        assert_eq!(self.next(), None, "the server closes after {wanted:?}");
    }
}

/// Reads until every client has the `count` messages of room 7 and the `each` answers to its own: all saw one
/// order without a gap.
pub fn expect_one_order(clients: &mut [Client], count: usize, each: usize) {
    let mut orders = Vec::new();
    for client in clients {
        let (mut order, mut acks) = (Vec::new(), 0);
        while order.len() < count || acks < each {
            match client.next().expect("the server stays") {
                ServerFrame::Deliver(message) => {
                    assert_eq!(message.room, Some(RoomId(7)));
                    if message.ack_wanted {
                        client.ack(message.id);
                    }
                    order.push((message.sequence, message.sender, message.client_msg_id.clone()));
                }
                ServerFrame::SendAck(ack) => {
                    assert!(matches!(ack.outcome, Outcome::Sequenced { .. }), "{ack:?}");
                    acks += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(order.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{order:?}");
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
}

/// Sends heartbeats for clients, every 200 ms, until it is dropped.
pub struct Beats {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Beats {
    pub fn of(clients: &[Client]) -> Self {
        let mut streams: Vec<TcpStream> =
            clients.iter().map(|client| client.stream.try_clone().unwrap()).collect();
        let beat = clients[0].encoded(&ClientFrame::Heartbeat { echo: &[] });
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                // One that is closed fails its test where it is read.
                streams.iter_mut().for_each(|stream| drop(stream.write_all(&beat)));
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
