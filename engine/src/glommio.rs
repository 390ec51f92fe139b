//! The `glommio` engine: the tasks on glommio.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use shard::{Shard, ShardId};

use crate::seat::Seat;
use crate::tasks::{self, ReceiveBuffer, Runtime};

/// Submissions that glommio hands to the kernel at once.
const RING_ENTRIES: usize = 1024;

/// Memory registered for file I/O, of which there is none: the smallest that glommio takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// Runs the shard until its core stops.
pub(crate) fn run<S: Shard + 'static>(
    seat: Seat<S::Mail, S::Report>,
    build: impl FnOnce(ShardId) -> S,
) -> io::Result<()> {
    // The thread is pinned already.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_ENTRIES)
        .io_memory(IO_MEMORY_BYTES)
        .make()
        .map_err(|error| io::Error::other(format!("glommio: {error}")))?;
    executor.run(tasks::run::<S, Glommio>(seat, build))
}

struct Glommio;

/// A stream known to glommio, which wants it by unique reference to wait for it.
struct Stream {
    stream: RefCell<TcpStream>,
    fd: RawFd,
}

impl Stream {
    fn new(fd: OwnedFd) -> Self {
        let fd = fd.into_raw_fd();
        // SAFETY: `fd` was ours and is the stream's from here on.
        Self { stream: RefCell::new(unsafe { TcpStream::from_raw_fd(fd) }), fd }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and is borrowed for as long.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Runtime for Glommio {
    type Socket = Stream;
    type Watch = OwnedFd;

    fn socket(fd: OwnedFd) -> io::Result<Stream> {
        Ok(Stream::new(fd))
    }

    fn watch(fd: OwnedFd) -> io::Result<OwnedFd> {
        Ok(fd)
    }

    async fn receive(socket: &Stream, buffer: &ReceiveBuffer) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut stream = socket.stream.borrow_mut();
            Pin::new(&mut *stream).poll_read(cx, &mut buffer.borrow_mut())
        })
        .await
    }

    async fn send(socket: &Stream, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *socket.stream.borrow_mut()).poll_write(cx, bytes)).await
    }

    async fn connected(socket: &Stream) -> io::Result<()> {
        // A send of nothing waits for the connect like any other, and reports its error.
        Self::send(socket, &[]).await.map(drop)
    }

    /// glommio waits for streams only, and reads them to see whether they are ready. On a stream made of a
    /// copy of the descriptor, that read fails (`ENOTSOCK`, `ENOTCONN`), but not before there is something to
    /// read.
    async fn readable(watch: &OwnedFd) -> io::Result<()> {
        let copy = Stream::new(watch.try_clone()?);
        poll_fn(|cx| Pin::new(&mut *copy.stream.borrow_mut()).poll_read(cx, &mut [0]).map(drop)).await;
        Ok(())
    }

    async fn sleep(time: Duration) {
        Timer::new(time).await;
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(glommio::spawn_local(task).detach()); // it goes on without its handle
    }
}
