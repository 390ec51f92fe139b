//! Where the user's lines come from, and where the client's lines go.

use std::io::{self, BufRead, IsTerminal, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::Sender;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::Input;
use crate::cli;
use crate::printable::printable_lines;

const PROMPT: &str = "> ";
/// What shells add to the number of a signal, for the code of a process that it ended.
const ENDED_BY_SIGNAL: i32 = 128;

/// The longest line that is read. No frame may be longer, whatever a server allows.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The user's side of the client.
pub enum Screen {
    /// Lines as they come, in and out: a script, a file, a pipe.
    Plain,
    /// A terminal; the line being typed stays below the output.
    Terminal(Terminal),
}

/// A terminal with a line editor, on a thread of its own.
pub struct Terminal {
    printer: Box<dyn ExternalPrinter + Send>,
    /// The terminal's settings before: the process may end while the editor waits for keys.
    before: Termios,
    has_colours: bool,
}

impl Screen {
    /// Reads lines on a thread of its own: by an editor if both ends are a terminal that can have one.
    pub fn open(inputs: Sender<Input>) -> Self {
        match edited(&inputs) {
            Some(terminal) => Self::Terminal(terminal),
            None => {
                std::thread::spawn(move || read(io::stdin().lock(), &inputs));
                Self::Plain
            }
        }
    }

    /// Whether a person writes, with a line editor.
    pub fn is_edited(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Shows one line to the user. On a terminal it has its time and a colour.
    pub fn say(&mut self, tone: Tone, line: &str) {
        let is_said = match self {
            Self::Plain => false,
            // Without its editor, the terminal is like any other.
            Self::Terminal(terminal) => terminal.say(tone, line, SystemTime::now()).is_ok(),
        };
        if !is_said {
            cli::print(&format!("{line}\n"));
        }
    }
}

impl Terminal {
    fn say(&mut self, tone: Tone, line: &str, now: SystemTime) -> rustyline::Result<()> {
        self.printer.print(dressed(tone, line, now, self.has_colours))
    }
}

/// The kind of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// What somebody wrote.
    Message,
    /// The outcomes of the user's own messages.
    Good,
    /// Failures, and warnings of the server.
    Bad,
    /// All else.
    Quiet,
}

impl Tone {
    /// The parameters of the terminal's escape sequence (ECMA-48, SGR).
    const fn colour(self) -> &'static str {
        match self {
            Self::Message => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Quiet => "2",
        }
    }
}

/// A line for a terminal: with its time (UTC, as in logs), and without escape sequences but our own colour.
fn dressed(tone: Tone, line: &str, now: SystemTime, has_colours: bool) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 86_400);
    let time = format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let line = printable_lines(line);
    match has_colours {
        true => format!("\x1b[2m{time}\x1b[0m \x1b[{}m{line}\x1b[0m\n", tone.colour()),
        false => format!("{time} {line}\n"),
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The editor takes one text at a time, so earlier texts are on the screen after these. Or it has
        // ended.
        let _ = self.printer.print(String::new()).and_then(|()| self.printer.print(String::new()));
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before); // the terminal may be gone
    let _ = cli::write("\r\x1b[K"); // without the prompt
}

/// Restores the terminal when a signal ends the process. The editor handles an interrupt, as a key.
fn restore_at_the_end(before: Termios) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let context = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    drop(context);
    std::thread::spawn(move || {
        runtime.block_on(terminate.recv());
        restore(&before);
        std::process::exit(ENDED_BY_SIGNAL + SignalKind::terminate().as_raw_value());
    });
    Ok(())
}

fn edited(inputs: &Sender<Input>) -> Option<Terminal> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return None;
    }
    let before = tcgetattr(io::stdin()).ok()?;
    let config = rustyline::Config::builder().bracketed_paste(false).auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config).ok()?;
    let printer = Box::new(editor.create_external_printer().ok()?); // a terminal like `dumb` can have none
    restore_at_the_end(before.clone()).ok()?;
    let inputs = inputs.clone();
    std::thread::spawn(move || {
        let last = loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    if inputs.send(Input::Line(line)).is_err() {
                        return;
                    }
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => break Input::End,
                Err(error) => break Input::Broken(error.to_string()),
            }
        };
        drop(editor); // from here on the terminal is as any other
        let _ = inputs.send(last); // the client may be gone
    });
    Some(Terminal { printer, before, has_colours: cli::wants_colours() })
}

/// Passes lines on until there are no more. A line that is no text, or is too long, is reported, and the
/// following ones still come.
fn read(mut lines: impl BufRead, inputs: &Sender<Input>) {
    for number in 1_u64.. {
        let input = match read_line(&mut lines) {
            Ok(Line::End) => Input::End,
            Ok(Line::Whole(line)) => String::from_utf8(line).map_or(Input::NoText(number), Input::Line),
            Ok(Line::TooLong) => Input::TooLong(number),
            Err(error) => Input::Broken(error.to_string()),
        };
        let is_last = matches!(input, Input::End | Input::Broken(_));
        if inputs.send(input).is_err() || is_last {
            return; // the client may be gone
        }
    }
}

enum Line {
    End,
    Whole(Vec<u8>),
    TooLong,
}

/// Reads a line; a line that is too long is dropped.
fn read_line(lines: &mut impl BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let is_whole = line.last() == Some(&b'\n') || (read as u64) < LINE_BYTES_MAX;
        is_too_long |= !is_whole;
        match (is_whole, is_too_long) {
            (true, true) => return Ok(Line::TooLong),
            (true, false) if line.is_empty() => return Ok(Line::End),
            (true, false) => return Ok(Line::Whole(line)),
            (false, _) => line.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_line_has_its_time_and_no_colours_but_ours() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1_763_000_042);
        let evil = "[direct] 7: \u{1b}[31mred";
        let plain = dressed(Tone::Bad, evil, now, false);
        assert!(plain.starts_with("02:14:02Z [direct] 7: ") && !plain.contains('\u{1b}'), "{plain:?}");
        let coloured = dressed(Tone::Bad, evil, now, true);
        assert_eq!(coloured.matches('\u{1b}').count(), 4, "{coloured:?}");
        assert!(coloured.ends_with("\u{1b}[0m\n"), "{coloured:?}");
    }

    #[test]
    fn a_line_that_is_no_text_or_too_long_hides_none_after_it() {
        let (inputs, read_ones) = bounded(10);
        let max = LINE_BYTES_MAX as usize;
        let (long, longest) = (vec![b'x'; 3 * max], vec![b'x'; max - 1]);
        let text = [b"one\n\xff\xfe\nthree\n", &long[..], b"\n", &longest, b"\nlast"].concat();
        read(&text[..], &inputs);
        let kinds: Vec<String> = read_ones
            .try_iter()
            .map(|input| match input {
                Input::Line(line) if line.len() > 100 => format!("{} bytes", line.len()),
                Input::Line(line) => line.trim().to_owned(),
                Input::NoText(number) => format!("no text {number}"),
                Input::TooLong(number) => format!("too long {number}"),
                Input::End => "end".into(),
                _ => "?".into(),
            })
            .collect();
        let whole = format!("{max} bytes");
        assert_eq!(kinds, ["one", "no text 2", "three", "too long 4", &whole, "last", "end"]);
    }
}
