//! The epoll loop: level-triggered, one `recv` and one `send` an event.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use super::protocol::{Protocol, Reply};

const EVENTS: usize = 1024;
const RECEIVE_BYTES: usize = 64 * 1024;

/// Serves `listener` until a system call fails.
pub fn run(listener: TcpListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers; the result is checked.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    watch(epoll, listener.as_raw_fd())?;
    let mut server =
        Server { epoll, protocol: Protocol::new(), buffer: vec![0; RECEIVE_BYTES], replies: Vec::new() };
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: `events` has room for `EVENTS` entries.
        let ready = check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, -1) })?;
        for event in &events[..ready as usize] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() { server.accept(fd)? } else { server.receive(fd) }
        }
    }
}

struct Server {
    epoll: RawFd,
    protocol: Protocol,
    buffer: Vec<u8>,
    replies: Vec<Reply>,
}

impl Server {
    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        loop {
            // SAFETY: null pointers are allowed: the peer's address is not wanted.
            let fd = unsafe {
                libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK)
            };
            if fd < 0 {
                return Ok(());
            }
            watch(self.epoll, fd)?;
        }
    }

    fn receive(&mut self, fd: RawFd) {
        // SAFETY: `buffer` has `RECEIVE_BYTES` bytes.
        let len = unsafe { libc::recv(fd, self.buffer.as_mut_ptr().cast(), RECEIVE_BYTES, 0) };
        let Some(len) = usize::try_from(len).ok().filter(|len| *len > 0) else {
            if len == 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
                self.protocol.closed(fd);
                // SAFETY: `fd` is a connection of this loop, closed only here.
                unsafe { libc::close(fd) };
            }
            return;
        };
        self.protocol.receive(fd, &self.buffer[..len], &mut self.replies);
        for reply in self.replies.drain(..) {
            match reply {
                Reply::Echo => send_all(fd, &self.buffer[..len]),
                Reply::Own(bytes) => send_all(fd, &bytes),
                Reply::Room(bytes) => {
                    self.protocol.members().iter().for_each(|member| send_all(*member, &bytes))
                }
                Reply::Last(bytes) => {
                    send_all(fd, &bytes);
                    shutdown(fd);
                }
                Reply::Broken => shutdown(fd),
            }
        }
    }
}

/// Writes all of `bytes`, waiting for room; gives up when the peer is gone, which the next `recv` reports.
fn send_all(fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: `bytes` is valid for its length.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => {
                let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one entry is given.
                unsafe { libc::poll(&mut poll, 1, -1) };
            }
            Err(_) => return,
        }
    }
}

fn shutdown(fd: RawFd) {
    // SAFETY: `fd` is an open connection of this loop.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

fn watch(epoll: RawFd, fd: RawFd) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
    // SAFETY: `event` outlives the call.
    check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
