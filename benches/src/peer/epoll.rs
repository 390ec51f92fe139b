//! The one wait of the client.
#![allow(unsafe_code, reason = "a bare epoll is all that the client needs; see the crate's doc")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const EVENTS: usize = 1024;

/// A level-triggered wait for readable sockets.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Reports `token` when `socket` is readable.
    pub fn watch(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        // SAFETY: `event` outlives the call.
        let result = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event)
        };
        check(result).map(drop)
    }

    /// Reports `socket` no more.
    pub fn forget(&self, socket: &impl AsRawFd) -> io::Result<()> {
        // SAFETY: removing takes no event.
        let result = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                socket.as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
        check(result).map(drop)
    }

    /// The tokens of readable sockets, waiting for one up to `timeout`, whole milliseconds of it.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `events` has room for `EVENTS` entries.
        let ready = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, timeout_ms)
        };
        let ready = check(ready)? as usize;
        Ok(self.events[..ready].iter().map(|event| event.u64 as usize).collect::<Vec<_>>().into_iter())
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
