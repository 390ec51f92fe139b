//! A terminal of one test, with a program on it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Both ends of a pseudo-terminal: the side of the keys and the screen, and that of programs.
pub struct Terminal {
    user: File,
    program: File,
}

impl Terminal {
    pub fn open() -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        Self {
            user: File::from(user),
            program: OpenOptions::new().read(true).write(true).open(name).unwrap(),
        }
    }

    /// Gives it a size.
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.program, size).unwrap();
    }

    /// Starts a program on it.
    pub fn run(&self, command: &mut Command) -> Child {
        let end = || self.program.try_clone().unwrap();
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    pub fn press(&mut self, keys: &str) {
        self.user.write_all(keys.as_bytes()).unwrap();
    }

    /// All that programs write from here on.
    pub fn watch(&self) -> Arc<Mutex<String>> {
        let written = Arc::new(Mutex::new(String::new()));
        let (copy, mut reading) = (written.clone(), self.user.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut buffer) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        written
    }

    /// How it treats keys.
    pub fn modes(&self) -> LocalModes {
        tcgetattr(&self.program).unwrap().local_modes
    }
}
