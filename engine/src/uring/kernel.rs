//! The operations of the kernel, and the memory that they use.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use shard::ConnId;

use super::buffers::Buffers;
use super::connects::Connects;
use super::file::{self, File, Place};
use super::file_ring::{FURTHER_RINGS_MAX, FileRing};
use super::group::{Group, PerGroup};
use super::ring::{Completion, Ring};
use super::sends::Sends;
use super::token::{Op, Token};
use crate::{Clock, Options, socket};

/// How long the operations still in flight at the end may take to be cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// The rings, and all memory that their operations point to. Dropped, it ends the operations first.
///
/// The main ring has the listeners, the bell and the open files, and is what the shard sleeps on. Further
/// rings come with the first connection past `Options::open_connections_max`. The main ring polls each of
/// them while the shard sleeps; such a poll ends with its first completion, as the kernel lets no ring wake
/// another for ever.
pub(super) struct Kernel {
    pub(super) main: Ring,
    /// `None` for a group that has no connections yet.
    buffers: PerGroup<Option<Buffers>>,
    further: Vec<FileRing>,
    /// Numbers of further rings that have room.
    roomy: Vec<u8>,
    /// Connections that are open files.
    open: u32,
    /// Keeps the place of one file: accepted sockets that were not adopted yet may have taken all others when
    /// a ring has to be added.
    spare: Option<OwnedFd>,
    pub(super) sends: Sends,
    pub(super) connects: Connects,
    options: Arc<Options>,
}

impl Kernel {
    /// A shard that listens gets the buffers of opened connections with the first of those. Another shard has
    /// only these.
    pub(super) fn new(options: &Arc<Options>) -> io::Result<Self> {
        Buffers::check(options.opened_recv_buffers, options.opened_recv_buffer_size_bytes)?;
        let mut kernel = Self {
            main: Ring::new(0)?,
            buffers: PerGroup::default(),
            further: Vec::new(),
            roomy: Vec::new(),
            open: 0,
            spare: None,
            sends: Sends::default(),
            connects: Connects::default(),
            options: options.clone(),
        };
        kernel.have_buffers(if kernel.listens() { Group::Accepted } else { Group::Opened })?;
        if options.has_rings() {
            kernel.keep_spare();
        }
        Ok(kernel)
    }

    /// Takes over the socket of a connection: as an open file, while there may be more of them, or in the
    /// table of a further ring.
    pub(super) fn adopt(&mut self, socket: OwnedFd, group: Group) -> io::Result<File> {
        // Connections that a listening shard opens lead to other nodes: a few, which stay with the main ring.
        let is_open =
            self.open < self.options.open_connections_max || group == Group::Opened && self.listens();
        if is_open {
            self.have_buffers(group)?;
            self.open += 1;
            return Ok(File::open(socket));
        }
        let number = self.roomy_ring(group)?;
        let ring = &mut self.further[usize::from(number) - 1];
        let slot = ring.insert(socket)?;
        if !ring.has_room() {
            self.roomy.pop();
        }
        self.keep_spare(); // the socket has just left a place
        Ok(File::direct(number, slot))
    }

    /// Closes a socket that no operation is under way on.
    pub(super) fn close(&mut self, file: File) -> io::Result<()> {
        match file.into_place() {
            Place::Open(fd) => {
                self.open -= 1;
                // With the next submission.
                let close = opcode::Close::new(Fd(fd)).build().flags(Flags::SKIP_SUCCESS);
                self.main.push_plain(close, Token::new(Op::Close))
            }
            Place::Direct { ring: number, slot } => {
                let ring = &mut self.further[usize::from(number) - 1];
                if !ring.has_room() {
                    self.roomy.push(number);
                }
                ring.remove(slot)
            }
        }
    }

    /// Resets a connection; operations on it end.
    pub(super) fn reset(&mut self, file: &File) -> io::Result<()> {
        match file.place() {
            Place::Open(_) => file.as_open().iter().for_each(socket::reset),
            Place::Direct { ring, slot } => {
                let ring = &mut self.further[usize::from(ring) - 1];
                match ring.install(slot) {
                    Ok(socket) => socket::reset(&socket),
                    Err(_) => ring.cancel(slot)?, // no file is left; the close will end the connection
                }
            }
        }
        Ok(())
    }

    /// Sends a FIN after what is written.
    pub(super) fn finish_writing(&mut self, file: &File) -> io::Result<()> {
        match (file.as_open(), file.place()) {
            (Some(socket), _) => socket::finish_writing(&socket),
            (None, Place::Direct { ring, slot }) => {
                socket::finish_writing(&self.further[usize::from(ring) - 1].install(slot)?)
            }
            (None, Place::Open(_)) => Ok(()), // an open file is one
        }
    }

    /// Queues an entry on `file` that points to no memory.
    pub(super) fn push_plain(&mut self, file: &File, entry: Entry, token: Token) -> io::Result<()> {
        // SAFETY: `entry` points to no memory.
        unsafe { self.push(file, entry, token) }
    }

    /// Queues an entry that names no file, and points to no memory, in the ring of `file`.
    pub(super) fn push_beside(&mut self, file: &File, entry: Entry, token: Token) -> io::Result<()> {
        match file.place() {
            Place::Open(_) => self.main.push_plain(entry, token),
            Place::Direct { ring, .. } => self.further[usize::from(ring) - 1].ring.push_plain(entry, token),
        }
    }

    /// Writes what is left of the batch `send`.
    pub(super) fn send(&mut self, send: u32, file: &File, conn: ConnId) -> io::Result<()> {
        let entry = self.sends.entry(send, Fd(file.number()));
        // SAFETY: the batch stays in `sends` until the completion of this operation, its only one, has come
        // in; `drop` leaks it when that cannot be had.
        unsafe { self.push(file, entry, Token::of(Op::Send, conn)) }
    }

    /// Connects to the address that `connects` has for `conn`.
    pub(super) fn connect(&mut self, conn: ConnId, file: &File) -> io::Result<()> {
        let Some(peer) = self.connects.peer(conn) else { return Ok(()) };
        let entry = opcode::Connect::new(Fd(file.number()), peer.as_ptr().cast(), peer.len()).build();
        // SAFETY: the address stays in `connects`, boxed, until the completion of this operation, its only
        // one, has come in; `drop` leaks it when that cannot be had.
        unsafe { self.push(file, entry, Token::of(Op::Connect, conn)) }
    }

    /// The buffers of `ring` for connections of `group`.
    pub(super) fn buffers(&mut self, ring: u8, group: Group) -> Option<&mut Buffers> {
        match ring {
            0 => self.buffers[group].as_mut(),
            _ if group != self.group_of_further() => None,
            further => Some(&mut self.further.get_mut(usize::from(further) - 1)?.buffers),
        }
    }

    /// Notes that the receive of `conn`, whose file is `file`, has found no buffer.
    pub(super) fn starve(&mut self, conn: ConnId, file: &File, group: Group) {
        let ring = match file.place() {
            Place::Open(_) => 0,
            Place::Direct { ring, .. } => ring,
        };
        if let Some(buffers) = self.buffers(ring, group) {
            buffers.starved.push_back(conn);
        }
    }

    /// Whether a receive of `group` has found no buffer and waits to be armed again.
    pub(super) fn has_starved(&self, group: Group) -> bool {
        self.all_buffers(group).any(|buffers| !buffers.starved.is_empty())
    }

    /// How many do.
    pub(super) fn starved(&self, group: Group) -> usize {
        self.all_buffers(group).map(|buffers| buffers.starved.len()).sum()
    }

    /// Forgets those that are not to be kept.
    pub(super) fn retain_starved(&mut self, group: Group, is_kept: impl Fn(ConnId) -> bool) {
        for ring in 0..self.rings() {
            if let Some(buffers) = self.buffers(ring as u8, group) {
                buffers.starved.retain(|conn| is_kept(*conn));
            }
        }
    }

    /// The next of them in `ring` that a buffer may have room for, after `armed` others.
    pub(super) fn next_starved(&mut self, ring: usize, group: Group, armed: usize) -> Option<ConnId> {
        let full = match ring {
            0 => self.main.full_buffers(),
            further => self.further[further - 1].ring.full_buffers(),
        };
        self.buffers(ring as u8, group)?.next_starved(full, armed)
    }

    fn all_buffers(&self, group: Group) -> impl Iterator<Item = &Buffers> {
        let further = self.further.iter().filter(move |_| group == self.group_of_further());
        self.buffers[group].iter().chain(further.map(|ring| &ring.buffers))
    }

    /// How many rings there are.
    pub(super) fn rings(&self) -> usize {
        1 + self.further.len()
    }

    /// The next completion of a ring.
    pub(super) fn next(&mut self, ring: usize) -> Option<Completion> {
        let mut completion = match ring {
            0 => self.main.next(),
            further => self.further[further - 1].ring.next(),
        }?;
        if let Some(group) = completion.token.op().group()
            && let Some(buffers) = self.buffers(ring as u8, group)
        {
            buffers.place(&mut completion);
        }
        Some(completion)
    }

    /// Whether some ring has a completion.
    pub(super) fn is_ready(&self) -> bool {
        self.main.is_ready() || self.further.iter().any(|ring| ring.ring.is_ready())
    }

    /// Whether bytes of connections wait in some ring, or for a buffer.
    pub(super) fn has_unread(&self) -> bool {
        self.main.has_unread()
            || self.further.iter().any(|ring| ring.ring.has_unread())
            || Group::ALL.into_iter().any(|group| self.has_starved(group))
    }

    /// The poll of a further ring has completed: takes in what that has.
    pub(super) fn take_in(&mut self, number: u8) -> io::Result<()> {
        let Some(ring) = self.further.get_mut(usize::from(number).wrapping_sub(1)) else { return Ok(()) };
        ring.is_polled = false;
        ring.ring.submit()
    }

    /// Hands what is queued to the kernel, and takes in what is complete.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.submit_further()?;
        self.main.submit()
    }

    /// The same, and waits for a completion, up to `timeout` (`None`: as long as it takes).
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.submit_further()?;
        if self.further.iter().any(|ring| ring.ring.is_ready()) {
            return self.main.submit();
        }
        for (at, ring) in self.further.iter_mut().enumerate().filter(|(_, ring)| !ring.is_polled) {
            let poll = opcode::PollAdd::new(Fd(ring.ring.as_raw_fd()), libc::POLLIN as u32).build();
            ring.is_polled = true;
            self.main.push_plain(poll, Token::ring(at as u8 + 1))?;
        }
        self.main.submit_and_wait(timeout)
    }

    fn submit_further(&mut self) -> io::Result<()> {
        self.further.iter_mut().try_for_each(|ring| ring.ring.submit())
    }

    fn listens(&self) -> bool {
        !self.options.listen.is_empty()
    }

    fn group_of_further(&self) -> Group {
        if self.listens() { Group::Accepted } else { Group::Opened }
    }

    fn have_buffers(&mut self, group: Group) -> io::Result<()> {
        if self.buffers[group].is_none() {
            let (count, size_bytes) = self.options.recv_buffers_of(group == Group::Accepted);
            let submitter = self.main.uring().submitter();
            self.buffers[group] = Some(Buffers::register(&submitter, group, count, size_bytes)?);
        }
        Ok(())
    }

    /// A further ring that has room: one that is there, or another.
    fn roomy_ring(&mut self, group: Group) -> io::Result<u8> {
        if let Some(number) = self.roomy.last() {
            return Ok(*number);
        }
        if self.further.len() == FURTHER_RINGS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.spare = None;
        let number = self.further.len() as u8 + 1;
        self.further.push(FileRing::new(number, group, &self.options)?);
        self.roomy.push(number);
        Ok(number)
    }

    fn keep_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = self.main.duplicate().ok();
        }
    }

    /// Queues `entry`, which names `file` by its number.
    ///
    /// # Safety
    ///
    /// As of [`Ring::push`].
    unsafe fn push(&mut self, file: &File, entry: Entry, token: Token) -> io::Result<()> {
        match file.place() {
            // SAFETY: the caller answers for the memory.
            Place::Open(_) => unsafe { self.main.push(entry, token) },
            Place::Direct { ring, .. } => {
                let ring = &mut self.further[usize::from(ring) - 1].ring;
                // SAFETY: the caller answers for the memory.
                unsafe { ring.push(entry.flags(Flags::FIXED_FILE), token) }
            }
        }
    }

    fn all_rings(&mut self) -> impl Iterator<Item = &mut Ring> {
        std::iter::once(&mut self.main).chain(self.further.iter_mut().map(|ring| &mut ring.ring))
    }

    /// Ends all operations. Returns whether none is left.
    fn cancel_all(&mut self) -> io::Result<bool> {
        const STEP: Duration = Duration::from_millis(10);
        let clock = Clock::with_offset(0);
        let end = clock.now() + CANCEL_TIME;
        for ring in self.all_rings() {
            drop_accepted(ring);
            ring.cancel_all()?;
            while ring.in_flight() > 0 && clock.now() < end {
                ring.submit_and_wait(Some(STEP))?;
                drop_accepted(ring);
            }
        }
        Ok(self.all_rings().all(|ring| ring.in_flight() == 0))
    }
}

/// Closes the connections that the core was not told of.
fn drop_accepted(ring: &mut Ring) {
    while let Some(completion) = ring.next() {
        if completion.token.op() == Op::Accept && completion.result >= 0 {
            drop(file::received(completion.result));
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !matches!(self.cancel_all(), Ok(true)) {
            // The kernel may still write to this memory, and read it: better leaked than reused.
            mem::forget(mem::take(&mut self.sends));
            mem::forget(mem::take(&mut self.connects));
            mem::forget(mem::take(&mut self.buffers));
            mem::forget(mem::take(&mut self.further));
        }
    }
}
