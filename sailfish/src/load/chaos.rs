//! Commands that break something in the middle of a run: at their times, or as a rolling restart.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use loadgen::Progress;
use shard::Instant;

use crate::cli::tell;

/// How long a command may take after the run before it is killed.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// How long every client must be ready after a restart before the next one.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How long the restart waits for them.
const RETURN_TIME: Duration = Duration::from_secs(120);

/// A command and when it is due.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Strike {
    /// How long after the first operation it is due.
    at: Duration,
    command: String,
}

impl Strike {
    /// From `SECONDS:COMMAND`; `seconds_max` is when the run ends.
    pub(super) fn new(text: &str, seconds_max: f64) -> anyhow::Result<Self> {
        let wanted = || format!("--chaos {text}: want SECONDS:COMMAND");
        let (seconds, command) = text.split_once(':').with_context(wanted)?;
        let seconds: f64 = seconds.trim().parse().ok().with_context(wanted)?;
        ensure!(
            (0.0..=seconds_max).contains(&seconds),
            "--chaos {text}: want 0 to {seconds_max} s, while the load runs"
        );
        ensure!(!command.trim().is_empty(), wanted());
        Ok(Self { at: Duration::from_secs_f64(seconds), command: command.to_owned() })
    }
}

/// Commands that run, and those that failed.
struct Shells {
    /// Times are reported relative to this.
    start: Instant,
    running: Vec<Shell>,
    failures: Vec<String>,
}

struct Shell {
    command: String,
    child: Child,
    begun: Instant,
}

impl Shells {
    fn start(&mut self, now: Instant, command: &str) {
        tell(&format!("at {:.1} s: {command}", now.since(self.start).as_secs_f64()));
        match spawn(command) {
            Ok(child) => self.running.push(Shell { command: command.to_owned(), child, begun: now }),
            Err(error) => self.fail(command, &format!("did not start: {error}")),
        }
    }

    /// Notes the commands that have ended.
    fn look(&mut self, now: Instant) {
        for mut shell in std::mem::take(&mut self.running) {
            match shell.child.try_wait() {
                Ok(None) => self.running.push(shell),
                Ok(Some(status)) => self.ended(&shell, status, now),
                Err(error) => self.fail(&shell.command, &format!("cannot be awaited: {error}")),
            }
        }
    }

    fn ended(&mut self, shell: &Shell, status: ExitStatus, now: Instant) {
        let seconds = now.since(shell.begun).as_secs_f64();
        if status.success() {
            tell(&format!("ended well after {seconds:.1} s: {}", shell.command));
        } else {
            self.fail(&shell.command, &format!("ended after {seconds:.1} s with {status}"));
        }
    }

    fn fail(&mut self, command: &str, how: &str) {
        let failure = format!("a command {how}: {command}");
        tell(&failure);
        self.failures.push(failure);
    }
}

impl Drop for Shells {
    fn drop(&mut self) {
        for shell in &mut self.running {
            let _ = shell.child.kill(); // it may have ended
            let _ = shell.child.wait();
        }
    }
}

/// Its output goes to stderr: stdout is the report's.
fn spawn(command: &str) -> io::Result<Child> {
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(stderr).spawn()
}

/// All faults of the gateways during a run.
pub(super) struct Chaos {
    start: Instant,
    /// Commands to come, the last one first.
    strikes: Vec<Strike>,
    rolling: Option<Rolling>,
    shells: Shells,
}

/// The state of a rolling restart.
struct Rolling {
    /// Commands to come, the last one first.
    commands: Vec<String>,
    /// The end of the last command, or the beginning of the load.
    since: Instant,
    /// Whether a command runs.
    is_running: bool,
    /// How long everybody must be ready before the next one.
    stay: Duration,
    /// Since when everybody has been ready.
    ready_since: Option<Instant>,
    clients: u32,
    is_over: bool,
}

impl Chaos {
    /// Nothing happens before `start`.
    pub(super) fn new(start: Instant, strikes: &[Strike]) -> Self {
        let mut strikes = strikes.to_vec();
        let shells = Shells { start, running: Vec::new(), failures: Vec::new() };
        strikes.sort_by_key(|strike| std::cmp::Reverse(strike.at));
        Self { start, strikes, rolling: None, shells }
    }

    /// Restarts one node after the other, the first one after `stay`.
    pub(super) fn rolling(start: Instant, commands: &[String], stay: Duration, clients: u32) -> Self {
        let rolling = Rolling {
            commands: commands.iter().rev().cloned().collect(),
            since: start,
            is_running: false,
            stay,
            ready_since: None,
            clients,
            is_over: false,
        };
        Self { rolling: Some(rolling), ..Self::new(start, &[]) }
    }

    /// Runs what is due; true once, when a rolling restart is over.
    pub(super) fn look(&mut self, now: Instant, progress: Progress) -> bool {
        if now < self.start {
            return false;
        }
        self.shells.look(now);
        while let Some(strike) = self.strikes.pop_if(|strike| self.start + strike.at <= now) {
            self.shells.start(now, &strike.command);
        }
        let Some(rolling) = &mut self.rolling else { return false };
        rolling.look(now, progress, &mut self.shells)
    }

    /// Waits for the commands that still run. Returns the failures, a line each.
    pub(super) fn end(mut self, now: impl Fn() -> Instant) -> Vec<String> {
        let until = now() + COMMAND_TIME;
        while !self.shells.running.is_empty() && now() < until {
            std::thread::sleep(Duration::from_millis(20));
            self.shells.look(now());
        }
        for shell in &self.shells.running {
            let failure =
                format!("a command was still running after the load and was killed: {}", shell.command);
            self.shells.failures.push(failure);
        }
        std::mem::take(&mut self.shells.failures)
    }
}

impl Rolling {
    /// Goes on to the next command once the last one has ended and everybody has been back for a while.
    /// Returns true once, at the end.
    fn look(&mut self, now: Instant, progress: Progress, shells: &mut Shells) -> bool {
        if self.is_over || !shells.running.is_empty() {
            return false;
        }
        if self.is_running {
            self.is_running = false;
            self.since = now;
            self.ready_since = None;
        }
        if progress.ready < self.clients {
            self.ready_since = None;
            if now.since(self.since) < RETURN_TIME {
                return false;
            }
            let away = self.clients - progress.ready;
            shells.failures.push(format!(
                "{away} clients were not back {} s after a restart: no further one is made",
                RETURN_TIME.as_secs()
            ));
            self.commands.clear();
        } else if now.since(*self.ready_since.get_or_insert(now)) < self.stay {
            return false;
        }
        self.stay = SETTLE_TIME;
        match self.commands.pop() {
            Some(command) => {
                self.is_running = true;
                shells.start(now, &command);
                false
            }
            None => {
                self.is_over = true;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_unix_nanos(1_000_000_000 + ms * 1_000_000)
    }

    /// Looks until no command runs.
    fn look(chaos: &mut Chaos, ms: u64, ready: u32) -> bool {
        let progress = Progress { ready, ..Progress::default() };
        let is_over = chaos.look(at(ms), progress);
        for shell in &mut chaos.shells.running {
            shell.child.wait().unwrap();
        }
        is_over
    }

    #[test]
    fn commands_run_at_their_times_and_failures_are_told() {
        let file = std::env::temp_dir().join(format!("sailfish-chaos-{}", std::process::id()));
        let first = format!("0.5: echo first >> {}", file.display());
        let second = format!("1:echo second >> {}; exit 3", file.display());
        let strikes = [second, first].map(|text| Strike::new(&text, 2.0).unwrap());
        let mut chaos = Chaos::new(at(0), &strikes);
        let done = || std::fs::read_to_string(&file).unwrap_or_default();
        look(&mut chaos, 499, 0);
        assert_eq!(done(), "");
        look(&mut chaos, 500, 0);
        assert_eq!(done(), "first\n");
        look(&mut chaos, 1200, 0);
        assert_eq!(done(), "first\nsecond\n");
        std::fs::remove_file(&file).unwrap();
        let failures = chaos.end(|| at(1300));
        assert!(failures.len() == 1 && failures[0].contains("exit status: 3"), "{failures:?}");
    }

    #[test]
    fn a_rolling_restart_waits_for_everybody() {
        let commands = ["true", "true"].map(String::from);
        let mut chaos = Chaos::rolling(at(0), &commands, Duration::from_secs(2), 5);
        let mut running = |ms, ready| {
            let is_over = look(&mut chaos, ms, ready);
            (chaos.shells.running.len(), is_over)
        };
        assert_eq!([running(0, 5), running(1999, 5), running(2000, 5)], [(0, false), (0, false), (1, false)]);
        // The first has ended; not all are back, and then they stay for a second.
        assert_eq!([running(2100, 3), running(3500, 5), running(4400, 5)], [(0, false); 3]);
        assert_eq!(
            [running(4500, 5), running(4600, 5), running(5599, 5)],
            [(1, false), (0, false), (0, false)]
        );
        assert_eq!([running(5600, 5), running(5700, 5)], [(0, true), (0, false)]);
    }

    #[test]
    fn who_never_comes_back_ends_a_rolling_restart() {
        let mut chaos = Chaos::rolling(at(0), &["true".to_owned()], Duration::ZERO, 5);
        assert!(!look(&mut chaos, 0, 5) && !look(&mut chaos, 10, 4) && !look(&mut chaos, 100_000, 4));
        assert!(look(&mut chaos, 120_010, 4));
        let failures = chaos.end(|| at(120_020));
        assert!(failures.len() == 1 && failures[0].starts_with("1 clients were not back"), "{failures:?}");
    }
}
