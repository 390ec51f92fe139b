//! Where the user's lines come from, and where the client's go.

use std::io::{self, BufRead, IsTerminal};
use std::sync::mpsc::Sender;

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

/// The user's side of the client.
pub enum Screen {
    /// Lines as they come, in and out: a script, a file, a pipe.
    Plain,
    /// A terminal, whose line being typed stays below what is said.
    Terminal(Terminal),
}

/// A terminal that a line editor has in hand, on a thread of its own.
pub struct Terminal {
    printer: Box<dyn ExternalPrinter + Send>,
    /// How the terminal was: the process may end while the editor waits for keys.
    before: Termios,
}

impl Screen {
    /// Reads lines on a thread of its own: by an editor where both ends are a terminal that can have one.
    pub fn open(inputs: Sender<Input>) -> Self {
        match edited(&inputs) {
            Some(terminal) => Self::Terminal(terminal),
            None => {
                std::thread::spawn(move || read(io::stdin().lock(), &inputs));
                Self::Plain
            }
        }
    }

    /// One line to the user.
    pub fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        let is_said = match self {
            Self::Plain => false,
            // Without its editor, the terminal is as any other.
            Self::Terminal(terminal) => terminal.printer.print(printable_lines(&line).into_owned()).is_ok(),
        };
        if !is_said {
            cli::print(&line);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The editor takes one text at a time, so what was said before these is on the screen after them.
        // Or it has ended.
        let _ = self.printer.print(String::new()).and_then(|()| self.printer.print(String::new()));
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before); // the terminal may be gone
    let _ = cli::write("\r\x1b[K"); // without the prompt
}

/// Who ends the process finds the terminal as it was. An interrupt is the editor's, to whom it is a key.
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
    Some(Terminal { printer, before })
}

/// Hands lines over until there are no more. One that is no text is told, and those after it come all the
/// same.
fn read(mut lines: impl BufRead, inputs: &Sender<Input>) {
    for number in 1_u64.. {
        let mut line = Vec::new();
        let input = match lines.read_until(b'\n', &mut line) {
            Ok(0) => Input::End,
            Ok(_) => String::from_utf8(line).map_or(Input::NoText(number), Input::Line),
            Err(error) => Input::Broken(error.to_string()),
        };
        let is_last = matches!(input, Input::End | Input::Broken(_));
        if inputs.send(input).is_err() || is_last {
            return; // the client may be gone
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_line_that_is_no_text_hides_none_after_it() {
        let (inputs, read_ones) = channel();
        read(&b"one\n\xff\xfe\nthree"[..], &inputs);
        let kinds: Vec<String> = read_ones
            .try_iter()
            .map(|input| match input {
                Input::Line(line) => line.trim().to_owned(),
                Input::NoText(number) => format!("no text {number}"),
                Input::End => "end".into(),
                _ => "?".into(),
            })
            .collect();
        assert_eq!(kinds, ["one", "no text 2", "three", "end"]);
    }
}
