//! The io_uring loop: multishot accept, multishot receive into provided buffers, and every send of a turn in
//! one submission.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use bytes::Bytes;
use io_uring::squeue::Flags;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffer_ring::{BufferRing, GROUP};
use super::protocol::{Protocol, Reply};

/// Few, so that the queue stays in the cache; a large one made each send dearer.
const SUBMISSIONS: u32 = 512;
const COMPLETIONS: u32 = 8 * 1024;

/// Serves `listener` until a system call fails. Sends of one connection are not queued behind each other: the
/// floor expects its peers to read.
pub fn run(listener: TcpListener) -> io::Result<Infallible> {
    let mut server = Server::new(listener)?;
    server.push(accept(&server.listener));
    loop {
        server.ring.submit_and_wait(1)?;
        server.turn();
    }
}

/// What a completion belongs to, with its number; packed into `user_data`.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Accept,
    /// Of the descriptor.
    Receive,
    /// Out of the receive buffer.
    Echo,
    /// Of the entry in `sends`.
    Send,
    /// Of anything whose end does not matter.
    Other,
}

struct Server {
    ring: IoUring<squeue::Entry>,
    listener: TcpListener,
    buffers: BufferRing,
    protocol: Protocol,
    /// Bytes that the kernel still reads, each with the number of sends under way.
    sends: Vec<(Bytes, usize)>,
    sends_free: Vec<usize>,
    /// Taken from the ring and not yet handled.
    completions: Vec<cqueue::Entry>,
    /// The empty other half of `completions`.
    spare: Vec<cqueue::Entry>,
    replies: Vec<Reply>,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = BufferRing::register(&ring)?;
        Ok(Self {
            ring,
            listener,
            buffers,
            protocol: Protocol::new(),
            sends: Vec::new(),
            sends_free: Vec::new(),
            completions: Vec::new(),
            spare: Vec::new(),
            replies: Vec::new(),
        })
    }

    fn turn(&mut self) {
        self.completions.extend(self.ring.completion());
        while !self.completions.is_empty() {
            let mut completions = std::mem::replace(&mut self.completions, std::mem::take(&mut self.spare));
            completions.drain(..).for_each(|completion| self.complete(&completion));
            self.spare = completions;
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let (kind, number) = unpack(completion.user_data());
        match kind {
            Kind::Accept => self.accepted(completion),
            Kind::Receive => self.received(number as RawFd, completion),
            Kind::Echo => self.buffers.put_back(number as u16),
            Kind::Send => self.sent(number as usize),
            Kind::Other => {}
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) {
        if completion.result() >= 0 {
            self.push(receive(completion.result()));
        }
        if !cqueue::more(completion.flags()) {
            self.push(accept(&self.listener));
        }
    }

    fn received(&mut self, fd: RawFd, completion: &cqueue::Entry) {
        let result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags());
        if let (Some(id), Ok(len)) = (buffer, usize::try_from(result)) {
            let mut replies = std::mem::take(&mut self.replies);
            self.protocol.receive(fd, self.buffers.bytes(id, len), &mut replies);
            let echoes = replies == [Reply::Echo];
            if echoes {
                self.push(send(fd, self.buffers.address(id), len, pack(Kind::Echo, u64::from(id))));
            } else {
                replies.drain(..).for_each(|reply| self.reply(fd, reply));
                self.buffers.put_back(id);
            }
            replies.clear();
            self.replies = replies;
        }
        if result == 0 || (result < 0 && result != -libc::ENOBUFS) {
            self.protocol.closed(fd);
            self.push(opcode::Close::new(types::Fd(fd)).build().user_data(pack(Kind::Other, 0)));
        } else if !cqueue::more(completion.flags()) {
            self.push(receive(fd));
        }
    }

    fn reply(&mut self, fd: RawFd, reply: Reply) {
        match reply {
            Reply::Echo => unreachable!("an echo comes alone"),
            Reply::Own(bytes) => self.send_to(&[fd], bytes, Flags::empty()),
            Reply::Room(bytes) => {
                let members = self.protocol.members().to_vec();
                self.send_to(&members, bytes, Flags::empty());
            }
            Reply::Last(bytes) => {
                self.send_to(&[fd], bytes, Flags::IO_LINK);
                self.push(shutdown(fd));
            }
            Reply::Broken => self.push(shutdown(fd)),
        }
    }

    fn send_to(&mut self, fds: &[RawFd], bytes: Bytes, flags: Flags) {
        if fds.is_empty() {
            return;
        }
        let (address, len) = (bytes.as_ptr(), bytes.len());
        let number = self.sends_free.pop().unwrap_or_else(|| {
            self.sends.push((Bytes::new(), 0));
            self.sends.len() - 1
        });
        self.sends[number] = (bytes, fds.len());
        for fd in fds {
            self.push(send(*fd, address, len, pack(Kind::Send, number as u64)).flags(flags));
        }
    }

    fn sent(&mut self, number: usize) {
        let (bytes, under_way) = &mut self.sends[number];
        *under_way -= 1;
        if *under_way == 0 {
            *bytes = Bytes::new();
            self.sends_free.push(number);
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what an entry points at is a receive buffer, which lives as long as the process and is put
        // back only after its completion, or bytes in `sends`, which stay until the last completion.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The kernel takes no submission while completions overflow.
            self.completions.extend(self.ring.completion());
            self.ring.submit().expect("a ring with room for completions takes submissions");
        }
    }
}

fn accept(listener: &TcpListener) -> squeue::Entry {
    opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build().user_data(pack(Kind::Accept, 0))
}

fn receive(fd: RawFd) -> squeue::Entry {
    opcode::RecvMulti::new(types::Fd(fd), GROUP).build().user_data(pack(Kind::Receive, fd as u64))
}

fn send(fd: RawFd, address: *const u8, len: usize, user_data: u64) -> squeue::Entry {
    opcode::Send::new(types::Fd(fd), address, len as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build()
        .user_data(user_data)
}

fn shutdown(fd: RawFd) -> squeue::Entry {
    opcode::Shutdown::new(types::Fd(fd), libc::SHUT_RDWR).build().user_data(pack(Kind::Other, 0))
}

fn pack(kind: Kind, number: u64) -> u64 {
    (kind as u64) << 56 | number
}

fn unpack(user_data: u64) -> (Kind, u64) {
    let kind = [Kind::Accept, Kind::Receive, Kind::Echo, Kind::Send, Kind::Other][(user_data >> 56) as usize];
    (kind, user_data & ((1 << 56) - 1))
}
