//! Starts the shards' threads and waits for them.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, bounded};
use shard::{Shard, ShardId};

#[cfg(feature = "glommio")]
use crate::glommio;
use crate::mailbox::{Exchange, MAILBOX_CAPACITY, Post, Remote};
use crate::seat::Seat;
use crate::{Kind, Options, Stats, listener, monoio, sys, uring};

/// Shards at work. Dropping it ends them; [`Running::join`] waits until their cores stop.
pub struct Running<M, R> {
    addresses: Vec<SocketAddr>,
    exchange: Arc<Exchange<M>>,
    control: Receiver<(ShardId, R)>,
    stats: Vec<Arc<Stats>>,
    threads: Vec<(ShardId, JoinHandle<io::Result<()>>)>,
}

impl<M, R> Running<M, R> {
    /// Where all shards listen, in the order of [`Options::listen`]; with [`Options::listen_each`], where the
    /// first one does.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Sends mail to the shards; may be cloned and kept.
    pub fn remote(&self) -> Remote<M> {
        self.exchange.remote()
    }

    /// The reports of the cores, with their senders. The channel is bounded: if nobody reads, reports are
    /// dropped and counted.
    pub fn control(&self) -> &Receiver<(ShardId, R)> {
        &self.control
    }

    /// The counters, in the order of the shards.
    pub fn stats(&self) -> &[Arc<Stats>] {
        &self.stats
    }

    /// Whether all shards still run. One that fails or panics ends the others.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|(_, thread)| !thread.is_finished())
    }

    /// Waits until every shard has stopped.
    ///
    /// # Errors
    /// The first failure or panic of a shard's thread.
    pub fn join(mut self) -> io::Result<()> {
        self.join_all()
    }

    fn join_all(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for (id, thread) in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|payload| {
                let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
                Err(io::Error::other(format!("shard {id:?} panicked: {text}")))
            });
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl<M, R> Drop for Running<M, R> {
    fn drop(&mut self) {
        self.exchange.halt();
        let _ = self.join_all(); // whoever wants to know calls join
    }
}

/// Runs `shards` on engine `kind`, each on a thread of its own. Each core is built on its thread, by its
/// function. Returns when all are ready.
///
/// # Errors
/// The address cannot be listened on, a core cannot be pinned, or an engine cannot be set up.
pub fn start<S, F>(
    kind: Kind,
    options: Options,
    shards: Vec<(ShardId, F)>,
) -> io::Result<Running<S::Mail, S::Report>>
where
    S: Shard + 'static,
    F: FnOnce(ShardId) -> S + Send + 'static,
{
    let (addresses, listeners) = listener::open(&options, shards.len())?;
    let pins = pins(&options, shards.len())?;
    let exchange = Exchange::new(shards.iter().map(|(id, _)| *id).collect())?;
    let (reports, control) = bounded(MAILBOX_CAPACITY);
    let options = Arc::new(options);
    let mut running = Running { addresses, exchange, control, stats: Vec::new(), threads: Vec::new() };
    let mut all_ready = Vec::new();
    let mut listeners = listeners.into_iter();
    for (at, (id, build)) in shards.into_iter().enumerate() {
        let stats = Arc::new(Stats::default());
        let (ready, is_ready) = bounded(1);
        let seat = Seat {
            id,
            listeners: listeners.next().unwrap_or_default(),
            post: Post::new(running.exchange.clone(), reports.clone(), at, stats.clone()),
            stats: stats.clone(),
            options: options.clone(),
            ready,
        };
        let (exchange, pin) = (running.exchange.clone(), pins[at]);
        let thread = thread::Builder::new()
            .name(format!("shard {id:?}"))
            .spawn(move || run_shard(kind, pin, seat, build, &exchange, at))?;
        running.stats.push(stats);
        running.threads.push((id, thread));
        all_ready.push(is_ready);
    }
    if all_ready.iter().any(|is_ready| is_ready.recv().is_err()) {
        running.exchange.halt();
        running.join_all()?;
        return Err(io::Error::other("a shard returned before it was ready"));
    }
    Ok(running)
}

fn run_shard<S, F>(
    kind: Kind,
    pin: Option<usize>,
    seat: Seat<S::Mail, S::Report>,
    build: F,
    exchange: &Exchange<S::Mail>,
    at: usize,
) -> io::Result<()>
where
    S: Shard + 'static,
    F: FnOnce(ShardId) -> S,
{
    // Unwind safe: the core and the engine are gone after a panic, and mailboxes are never left half-changed.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        if let Some(core) = pin {
            sys::pin_thread(core).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot pin a shard to core {core}: {error}"))
            })?;
        }
        match kind {
            Kind::Uring => uring::run(seat, build),
            Kind::Monoio => monoio::run_uring(seat, build),
            Kind::Epoll => monoio::run_epoll(seat, build),
            #[cfg(feature = "glommio")]
            Kind::Glommio => glommio::run(seat, build),
            #[cfg(not(feature = "glommio"))]
            Kind::Glommio => Err(crate::choice::not_built(kind)),
        }
    }));
    exchange.retire(at);
    if !matches!(ended, Ok(Ok(()))) {
        exchange.halt();
    }
    ended.unwrap_or_else(|payload| resume_unwind(payload))
}

/// The core of each shard.
fn pins(options: &Options, count: usize) -> io::Result<Vec<Option<usize>>> {
    match &options.pin {
        None => Ok(one_each(&sys::allowed_cores()?, count)),
        Some(list) if list.is_empty() => Ok(vec![None; count]),
        Some(list) if list.len() < count => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} cores to pin {count} shards to: name one for each", list.len()),
        )),
        Some(list) => Ok(list.iter().map(|&core| Some(core)).collect()),
    }
}

/// A core for each shard if there are as many of both. Otherwise none for any: fewer shards share the machine
/// with other processes, which would choose the same cores, and more would crowd some cores while others have
/// room.
fn one_each(cores: &[usize], count: usize) -> Vec<Option<usize>> {
    if cores.len() == count { cores.iter().copied().map(Some).collect() } else { vec![None; count] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_pinned_where_each_has_a_core_of_its_own() {
        assert_eq!(one_each(&[2, 5], 2), [Some(2), Some(5)]);
        assert_eq!(one_each(&[0, 1], 1), [None]);
        assert_eq!(one_each(&[0, 1], 3), [None; 3]);
    }

    #[test]
    fn cores_that_are_named_are_taken() {
        let options = Options { pin: Some(vec![7, 3]), ..Options::default() };
        assert_eq!(pins(&options, 2).unwrap(), [Some(7), Some(3)]);
        assert!(pins(&options, 3).is_err());
        let options = Options { pin: Some(Vec::new()), ..Options::default() };
        assert_eq!(pins(&options, 2).unwrap(), [None, None]);
    }
}
