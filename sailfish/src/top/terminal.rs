//! The terminal while it shows a screen: keys come one by one, and its settings are restored at the end.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::Event;
use super::keys::keys;
use super::lines::Line;
use super::view::Size;
use crate::cli;

/// The alternate screen without a cursor and without wrapped lines (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// For a terminal that does not know its size.
const SIZE: Size = Size { columns: 80, lines: 24 };
/// What shells add to the number of a signal, for the code of a process that it ended.
const ENDED_BY_SIGNAL: i32 = 128;
/// How long the screen may take to be left when a signal ends the process.
const END_TIME: Duration = Duration::from_secs(1);

/// The terminal's settings before, while it is ours.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal that is ours until this is dropped, or the process ends by a signal or a panic.
pub struct Terminal {
    has_colours: bool,
}

impl Terminal {
    /// Whether the process has a terminal that can show a screen.
    pub fn is_there() -> bool {
        let is_dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb" || name.is_empty());
        io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
    }

    /// Takes the terminal. Keys, signals and changes of its size are events from then on.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn open(events: &Sender<Event>) -> io::Result<Self> {
        hear_signals(events)?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *lock() = Some(before);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            default(panic);
        }));
        let terminal = Self { has_colours: cli::wants_colours() };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        cli::write(ENTER)?;
        let events = events.clone();
        std::thread::spawn(move || read_keys(&events));
        Ok(terminal)
    }

    /// How much there is to draw on.
    pub fn size() -> Size {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), lines: size.ws_row.into() }
            }
            _ => SIZE,
        }
    }

    /// Draws a screen in place of the last one.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn draw(&self, lines: &[Line], size: Size) -> io::Result<()> {
        let painted = lines.iter().map(|line| line.painted(size.columns, self.has_colours) + "\x1b[K");
        let painted: Vec<String> = painted.collect();
        cli::write(&format!("\x1b[H{}\x1b[J", painted.join("\r\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves the screen, once.
fn restore() {
    let Some(before) = lock().take() else { return };
    let _ = cli::write(LEAVE); // the terminal may be gone
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_keys(events: &Sender<Event>) {
    let mut space = [0; 256];
    loop {
        let count = match io::stdin().lock().read(&mut space) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if keys(&space[..count]).into_iter().any(|key| events.send(Event::Key(key)).is_err()) {
            return;
        }
    }
    let _ = events.send(Event::End(0)); // nobody is there to press `q`
}

/// Turns signals into events, on a thread of its own.
fn hear_signals(events: &Sender<Event>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let context = runtime.enter();
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let (terminate, interrupt, hangup) =
        (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
    let mut ends =
        [(signal(terminate)?, terminate), (signal(interrupt)?, interrupt), (signal(hangup)?, hangup)];
    drop(context);
    let events = events.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [(terminated, _), (interrupted, _), (hung_up, _)] = &mut ends;
            loop {
                let end = tokio::select! {
                    biased; // an end before a new size, which nobody would see
                    _ = terminated.recv() => terminate,
                    _ = interrupted.recv() => interrupt,
                    _ = hung_up.recv() => hangup,
                    _ = resized.recv() => { let _ = events.send(Event::Redraw); continue }
                    _ = continued.recv() => { let _ = events.send(Event::Redraw); continue }
                };
                let code = ENDED_BY_SIGNAL + end.as_raw_value();
                let _ = events.send(Event::End(code));
                // A terminal that takes no text would delay the end.
                std::thread::sleep(END_TIME);
                let before = BEFORE.try_lock().ok().and_then(|mut before| before.take());
                before.map(|before| tcsetattr(io::stdin(), OptionalActions::Now, &before));
                std::process::exit(code);
            }
        });
    });
    Ok(())
}
