//! A server's process, which ends with the one that started it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer after it was started.
const START_TIME: Duration = Duration::from_secs(30);
/// The shell starts the server, says its number, and kills it when the pipe from here ends, which it does with this process.
const WATCHER: &str =
    r#""$@" >&2 & server=$!; echo $server; exec >/dev/null; cat; kill -9 $server; wait $server 2>/dev/null"#;

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that can be killed and started again, with the same command.
pub struct Server {
    command: Vec<String>,
    log: std::path::PathBuf,
    address: SocketAddr,
    /// It speaks first.
    greets: bool,
    watcher: Option<Child>,
    pid: String,
}

impl Server {
    /// Starts a server, and waits until it takes connections at `address`, and greets there if it is one that does. What it prints goes
    /// to `log`.
    pub fn start(command: Vec<String>, log: &Path, address: SocketAddr, greets: bool) -> Self {
        let mut server =
            Self { command, log: log.to_owned(), address, greets, watcher: None, pid: String::new() };
        server.start_again();
        server
    }

    /// Starts it, after it was killed.
    pub fn start_again(&mut self) {
        self.kill();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut watcher = Command::new("sh")
            .args(["-c", WATCHER, "sh"])
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(watcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.pid = line.trim().to_owned();
        self.watcher = Some(watcher);
        let deadline = Instant::now() + START_TIME;
        while !self.answers() {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "{} does not answer at {}: {}",
                self.command[0],
                self.address,
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            watcher.wait().unwrap();
        }
    }

    /// Stops it for a while, or lets it go on: SIGSTOP and SIGCONT.
    pub fn freeze(&self, freeze: bool) {
        let signal = if freeze { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid.parse().unwrap()
    }

    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) else {
            return false;
        };
        let wait = stream.set_read_timeout(Some(Duration::from_secs(2)));
        !self.greets || wait.is_ok() && stream.read_exact(&mut [0]).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end.
pub fn run(program: &str, arguments: &[String], input: &str) -> String {
    use std::io::Write;
    let missing = |error| panic!("{program} cannot be started ({error}); `cargo xtask ci` installs it");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(missing);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
