//! `sailfish top`: nodes as they are, on a terminal.
//!
//! `poll` asks, `reading` reads the answers, `watched` and `rows` interpret them, `view` and `details` lay
//! them out, and `terminal` shows them. Only the first and the last do I/O.

mod columns;
mod details;
mod keys;
mod lines;
mod model;
mod page;
mod poll;
mod reading;
mod rows;
mod terminal;
mod units;
mod view;
mod watched;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::ConfigArgs;
use crate::serve::reachable;
use keys::Key;
use model::{Model, Moment, Next};
use poll::Asking;
use terminal::Terminal;
use watched::Answer;

/// How often the screen is drawn without an event, because it shows ages.
const DRAW_TIME: Duration = Duration::from_secs(1);
/// How many readings a rate needs.
const READINGS_ONCE: u32 = 2;

/// Shows running nodes live: connections, message rates, latencies, drops, CPU and memory, one row a node.
///
/// Keys: left and right choose the column that rows are sorted by, r turns the order, up and down choose the
/// node whose details stand below, Esc shows those of all, q ends.
#[derive(clap::Args)]
pub struct TopArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The admin port of a node, or the port of a backend: HOST:PORT or https://HOST:PORT. May be repeated,
    /// or have several with commas between them [default: node.admin].
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    admin: Vec<String>,
    /// The secret of the control API [default: control.secret].
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// How often nodes are asked, from 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Prints one table and ends, as it does when stdout is no terminal. Rates are those of one interval.
    #[arg(long)]
    once: bool,
}

/// An event.
enum Event {
    /// Node number `node` was asked.
    Answer {
        node: usize,
        at: Instant,
        outcome: anyhow::Result<Box<Answer>>,
    },
    Key(Key),
    /// The terminal has another size, or shows something else.
    Redraw,
    /// The end, with this exit code.
    End(i32),
}

/// Runs `sailfish top`. With `--once`, the code is 1 if a node did not tell all.
///
/// # Errors
/// A configuration that is wrong, an address among it, and those of the terminal.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    crate::cli::warn_of_secret("--secret", args.secret.as_ref(), "SAILFISH_CONTROL__SECRET");
    let mut admins = args.admin.clone();
    if admins.is_empty() {
        admins.push(reachable(config.node.admin).to_string());
    }
    let secret = args.secret.clone().unwrap_or_else(|| config.control.secret.clone());
    let asking = Arc::new(Asking { roots: config.tls.trusted.clone(), secret, interval: args.interval });
    let mut top = Top { model: Model::new(admins.clone(), args.interval), began: Instant::now() };
    let (events, received) = mpsc::channel();
    let terminal = match args.once || !Terminal::is_there() {
        true => None,
        false => Some(Terminal::open(&events)?),
    };
    for (node, admin) in admins.into_iter().enumerate() {
        poll::start(node, admin, asking.clone(), events.clone());
    }
    drop(events);
    match terminal {
        Some(terminal) => top.show(&terminal, &received),
        None => top.print(&received),
    }
}

struct Top {
    model: Model,
    began: Instant,
}

impl Top {
    /// Shows the screen until the user or a signal ends it.
    fn show(&mut self, terminal: &Terminal, received: &Receiver<Event>) -> anyhow::Result<ExitCode> {
        loop {
            let size = Terminal::size();
            let moment = self.moment();
            let rows = self.model.rows(moment);
            terminal.draw(&view::screen(&self.model, &rows, moment, size), size)?;
            let first = match received.recv_timeout(DRAW_TIME) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
            };
            // All that has come is taken before the screen is drawn again.
            for event in first.into_iter().chain(received.try_iter()) {
                match event {
                    Event::Answer { node, at, outcome } => self.take(node, at, outcome)?,
                    Event::Key(key) => {
                        let rows = self.model.rows(moment);
                        let columns = view::columns(&rows, size);
                        if self.model.press(key, &rows, &columns) == Next::End {
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                    Event::Redraw => {}
                    Event::End(code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
                }
            }
        }
    }

    /// Prints one table, once each node has been asked twice or has not answered.
    fn print(&mut self, received: &Receiver<Event>) -> anyhow::Result<ExitCode> {
        let mut open = vec![READINGS_ONCE; self.model.nodes.len()];
        while open.iter().any(|left| *left > 0) {
            let Event::Answer { node, at, outcome } = received.recv()? else { continue };
            open[node] = if outcome.is_ok() { open[node].saturating_sub(1) } else { 0 };
            self.take(node, at, outcome)?;
        }
        crate::cli::print(&view::table(&self.model.rows(self.moment())));
        let mut code = ExitCode::SUCCESS;
        for node in &self.model.nodes {
            let why = node.silence().map(|(_, why)| format!("does not answer: {why}"));
            if let Some(what) = why.as_deref().or_else(|| node.remark()) {
                crate::cli::complain(&format!("{} {what}", node.admin));
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    }

    fn take(&mut self, node: usize, at: Instant, outcome: anyhow::Result<Box<Answer>>) -> anyhow::Result<()> {
        let outcome = match outcome {
            Ok(answer) => Ok(*answer),
            Err(error) => Err(poll::why(error)?),
        };
        self.model.nodes[node].take(at.saturating_duration_since(self.began), outcome);
        Ok(())
    }

    fn moment(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { now: self.began.elapsed(), unix }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "want seconds from 0.1 to 3600".into())
}
