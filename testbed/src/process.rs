//! A server's process, which ends with the one that started it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::free_port;

/// How long a server may take to answer after it was started.
const START_TIME: Duration = Duration::from_secs(60);
/// How long it may take to answer one question meanwhile.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Another process may take a port that was free.
const PORTS_TRIED: u32 = 3;
/// The shell starts the server, says its number, and kills it when the pipe from here ends, which it does
/// with this process.
const WATCHER: &str = r#""$@" >&2 </dev/null & server=$!; echo $server; exec >/dev/null; cat; kill -9 $server; wait $server 2>/dev/null"#;

/// Whether the server behind a connection does its work.
pub type Probe = fn(&mut TcpStream) -> std::io::Result<bool>;

/// A server that can be killed and started again, with the same command.
pub struct Server {
    command: Vec<String>,
    log: PathBuf,
    address: SocketAddr,
    probe: Probe,
    process: Mutex<Option<Process>>,
}

impl Server {
    /// Starts a server on a port that is free, and waits until it works. What it prints goes to `log`.
    pub fn start(command: impl Fn(u16) -> Vec<String>, log: &Path, probe: Probe) -> Self {
        for _ in 0..PORTS_TRIED {
            let port = free_port();
            let server = Self {
                command: command(port),
                log: log.to_owned(),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                probe,
                process: Mutex::new(None),
            };
            if server.try_start() {
                return server;
            }
        }
        panic!(
            "{} does not start (`cargo xtask ci` installs it): {}",
            command(0)[0],
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Starts it, after it was killed.
    pub fn start_again(&self) {
        self.kill();
        assert!(
            self.try_start(),
            "{} does not start again: {}",
            self.command[0],
            std::fs::read_to_string(&self.log).unwrap_or_default()
        );
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// Stops it for a while, or lets it go on: SIGSTOP and SIGCONT.
    pub fn freeze(&self, freeze: bool) {
        let signal = if freeze { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().as_ref().expect("it runs").pid
    }

    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn try_start(&self) -> bool {
        let process = Process::start(&self.command, &self.log);
        let start = Instant::now();
        while process.is_alive() && start.elapsed() < START_TIME {
            if self.works().unwrap_or(false) {
                *self.process.lock().unwrap() = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn works(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&self.address, PROBE_TIME)?;
        stream.set_read_timeout(Some(PROBE_TIME))?;
        (self.probe)(&mut stream)
    }
}

/// A server process, and the shell that watches over it.
struct Process {
    watcher: Child,
    pid: u32,
}

impl Process {
    fn start(command: &[String], log: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut watcher = Command::new("sh");
        watcher.args(["-c", WATCHER, "sh"]).args(command).env("PATH", path()).process_group(0);
        let mut watcher =
            watcher.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("sh");
        let mut line = String::new();
        BufReader::new(watcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { watcher, pid: line.trim().parse().unwrap() }
    }

    fn is_alive(&self) -> bool {
        // A server that has ended is the shell's zombie until the shell ends.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status.contains("State:") && !status.contains("State:\tZ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Servers are in folders that not every user has in the path.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

/// Runs a command to its end; what it prints.
pub fn run<A: AsRef<std::ffi::OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> String {
    try_run(program, arguments).unwrap_or_else(|why| panic!("{program}: {why}"))
}

/// The same of a command that may fail; what it prints then.
pub fn try_run<A: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, String> {
    let output = Command::new(program).args(arguments).env("PATH", path()).stdin(Stdio::null()).output();
    let output = output
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); `cargo xtask ci` installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(text + &String::from_utf8_lossy(&output.stderr)),
    }
}
