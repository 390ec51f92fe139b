//! The client under test: a program that prints what happens to it.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::connection::pause;
use crate::{Verdict, ensure};

/// How a client is started: a program and its own arguments.
pub type Command = [String];
/// How much of what a client writes to stderr is kept.
const STDERR_BYTES_MAX: usize = 64 << 10;

/// A line that the client printed.
struct Event {
    at: Instant,
    value: Value,
    /// A script has asked for it.
    used: bool,
}

/// The client under test.
pub struct Program {
    /// `None` for one that somebody else has started.
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    events: Vec<Event>,
    stderr: Arc<Mutex<String>>,
    verbose: bool,
}

impl Program {
    pub fn start(command: &Command, arguments: &[String], verbose: bool) -> Verdict<Self> {
        let (name, own) = command.split_first().ok_or("no command")?;
        let mut process = std::process::Command::new(name);
        process.args(own).args(arguments);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
        let stdout = child.stdout.take().ok_or("the program has no stdout")?;
        let mut stderr = child.stderr.take().ok_or("the program has no stderr")?;
        let kept = Arc::new(Mutex::new(String::new()));
        let keeper = kept.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let mut kept = keeper.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < STDERR_BYTES_MAX {
                    kept.push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            }
        });
        let stdin = child.stdin.take();
        let lines = lines_of(stdout);
        Ok(Self { child: Some(child), stdin, lines, events: Vec::new(), stderr: kept, verbose })
    }

    /// A client that somebody else has started, whose lines come in by our stdin.
    pub fn foreign(verbose: bool) -> Self {
        let lines = lines_of(std::io::stdin());
        Self { child: None, stdin: None, lines, events: Vec::new(), stderr: Arc::default(), verbose }
    }

    /// Waits for an event of that name for which `is_it` holds, and which no script has asked for yet.
    pub fn event(
        &mut self,
        name: &str,
        within: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Verdict<(Instant, Value)> {
        let deadline = Instant::now() + within;
        loop {
            let is_wanted =
                |event: &&mut Event| !event.used && event.value["event"] == name && is_it(&event.value);
            if let Some(event) = self.events.iter_mut().find(is_wanted) {
                event.used = true;
                return Ok((event.at, event.value.clone()));
            }
            ensure!(
                self.take(deadline)?,
                "wanted an event {name} that fits, within {} ms; printed and unasked for: {}",
                within.as_millis(),
                self.unused()
            );
        }
    }

    /// All events of that name so far, asked for or not.
    pub fn events(&mut self, name: &str) -> Verdict<Vec<Value>> {
        while self.take(Instant::now())? {}
        let named = self.events.iter().filter(|event| event.value["event"] == name);
        Ok(named.map(|event| event.value.clone()).collect())
    }

    /// Fails when the program has ended.
    pub fn runs(&mut self) -> Verdict {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        status.map_or(Ok(()), |status| Err(format!("the program has ended with {status}")))
    }

    /// Ends the client's stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until the program has ended with code 0.
    pub fn ends(&mut self, within: Duration) -> Verdict {
        let Some(child) = &mut self.child else { return Ok(()) };
        let deadline = Instant::now() + within;
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => {
                    ensure!(ExitStatus::success(&status), "the program ended with {status}, not with code 0");
                    return Ok(());
                }
                None => ensure!(
                    Instant::now() < deadline,
                    "the program has not ended within {} ms",
                    within.as_millis()
                ),
            }
            pause(Duration::from_millis(5));
        }
    }

    /// What the author of a client wants to see of a scenario that failed.
    pub fn story(&mut self) -> String {
        let _ = self.events(""); // a line that is no JSON has been told already
        let mut story = String::new();
        for event in &self.events {
            let _ = writeln!(story, "    printed: {}", event.value); // a String takes every write
        }
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        for line in stderr.lines() {
            let _ = writeln!(story, "    stderr: {line}"); // the same
        }
        story
    }

    /// Takes a line in; false when none came until the deadline.
    fn take(&mut self, deadline: Instant) -> Verdict<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok((at, line)) => {
                if self.verbose {
                    eprintln!("    printed: {line}");
                }
                let value: Value = serde_json::from_str(&line)
                    .map_err(|error| format!("the program printed {line:?}, which is no JSON: {error}"))?;
                self.events.push(Event { at, value, used: false });
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                pause(left.min(Duration::from_millis(20))); // the program has ended and prints no more
                Ok(false)
            }
        }
    }

    fn unused(&self) -> String {
        let unused = self.events.iter().filter(|event| !event.used);
        unused.map(|event| event.value.to_string()).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            if sender.send((Instant::now(), line)).is_err() {
                break;
            }
        }
    });
    lines
}
