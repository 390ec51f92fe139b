//! Mail between the shards of a process, and to and from the control thread.
//!
//! Backpressure: mail that finds a mailbox full waits in its sender's [`Post`], one queue for each
//! destination, so the order of a pair is kept. While mail waits anywhere in the process, no shard reads an
//! accepted connection ([`Post::is_pushed_back`]): a shard that takes mail may have to pass it on, so the
//! reader's own room does not count. All go on taking mail and retry in every turn, so none waits for another
//! for ever, and what waits is no more than what has been read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use shard::ShardId;

use crate::Stats;
use slot::Mailbox;

#[cfg(test)]
mod model;
mod slot;
mod sync;

/// Mail that one shard's mailbox holds, and the control thread's.
pub const MAILBOX_CAPACITY: usize = 8192;

/// Mail and who sent it.
type Envelope<M> = (ShardId, M);

/// Sends mail to the shards from outside of them, as [`ShardId::CONTROL`].
pub struct Remote<M> {
    exchange: Arc<Exchange<M>>,
}

impl<M> Clone for Remote<M> {
    fn clone(&self) -> Self {
        Self { exchange: self.exchange.clone() }
    }
}

impl<M> Remote<M> {
    /// Puts `mail` into the mailbox of `to`; it arrives as from [`ShardId::CONTROL`].
    ///
    /// # Errors
    /// Gives the mail back when there is no such shard, it has stopped, or its mailbox is full.
    pub fn send(&self, to: ShardId, mail: M) -> Result<(), M> {
        let Some(mailbox) = self.exchange.index_of(to).map(|at| &self.exchange.mailboxes[at]) else {
            return Err(mail);
        };
        if mailbox.is_stopped() {
            return Err(mail);
        }
        mailbox.push((ShardId::CONTROL, mail)).map_err(|(_, mail)| mail)?;
        mailbox.wake();
        Ok(())
    }
}

/// All mailboxes of a process.
pub(crate) struct Exchange<M> {
    ids: Vec<ShardId>,
    mailboxes: Vec<Mailbox<Envelope<M>>>,
    /// Shards whose mail waits for room in some mailbox.
    waiting: AtomicUsize,
    /// Set when a shard fails or the shards are no longer wanted: all return as soon as they can.
    halted: AtomicBool,
}

impl<M> Exchange<M> {
    /// Mailboxes for `ids`.
    pub(crate) fn new(ids: Vec<ShardId>) -> io::Result<Arc<Self>> {
        let mailboxes = ids.iter().map(|_| Mailbox::new(MAILBOX_CAPACITY)).collect::<io::Result<Vec<_>>>()?;
        let (waiting, halted) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Arc::new(Self { ids, mailboxes, waiting, halted }))
    }

    pub(crate) fn remote(self: &Arc<Self>) -> Remote<M> {
        Remote { exchange: self.clone() }
    }

    /// Makes every shard return.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
        for mailbox in &self.mailboxes {
            mailbox.ring();
        }
    }

    /// The shard at `at` takes no mail any more.
    pub(crate) fn retire(&self, at: usize) {
        self.mailboxes[at].stop();
    }

    fn index_of(&self, id: ShardId) -> Option<usize> {
        let guess = id.index() as usize;
        match self.ids.get(guess) {
            Some(&found) if found == id => Some(guess),
            _ => self.ids.iter().position(|&found| found == id),
        }
    }
}

/// A shard's own end of the exchange, and its way to the control thread.
pub(crate) struct Post<M, R> {
    exchange: Arc<Exchange<M>>,
    control: Sender<Envelope<R>>,
    at: usize,
    stats: Arc<Stats>,
    /// Mail that did not fit, for each destination.
    waiting: Vec<VecDeque<M>>,
    waiting_total: usize,
    /// Destinations that got mail since the last flush.
    unrung: Vec<usize>,
}

impl<M, R> Post<M, R> {
    pub(crate) fn new(
        exchange: Arc<Exchange<M>>,
        control: Sender<Envelope<R>>,
        at: usize,
        stats: Arc<Stats>,
    ) -> Self {
        let waiting = exchange.ids.iter().map(|_| VecDeque::new()).collect();
        Self { exchange, control, at, stats, waiting, waiting_total: 0, unrung: Vec::new() }
    }

    /// The next mail for this shard.
    pub(crate) fn take(&mut self) -> Option<Envelope<M>> {
        let taken = self.exchange.mailboxes[self.at].pop();
        if taken.is_some() {
            self.stats.mail_in.add(1);
        }
        taken
    }

    /// Takes `mail` for `to`: delivers it or keeps it waiting. The receiver is woken by the next
    /// [`Post::flush`].
    pub(crate) fn send(&mut self, to: ShardId, mail: M) {
        self.stats.mail_out.add(1);
        let Some(at) = self.exchange.index_of(to) else {
            self.stats.mail_dropped.add(1);
            return;
        };
        let refused = if self.waiting[at].is_empty() { self.offer(at, mail) } else { Some(mail) };
        if let Some(mail) = refused {
            self.stats.mail_overflows.add(1);
            self.waiting[at].push_back(mail);
            self.waiting_total += 1;
            if self.waiting_total == 1 {
                self.exchange.waiting.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Hands `report` to the control thread. If the channel is full because that is far behind, the report is
    /// dropped and counted.
    pub(crate) fn report(&mut self, report: R) {
        self.stats.mail_out.add(1);
        if self.control.try_send((self.me(), report)).is_err() {
            self.stats.mail_dropped.add(1);
        }
    }

    /// Delivers what waits as far as it fits, and wakes the sleeping shards that got mail. Once a turn.
    pub(crate) fn flush(&mut self) {
        if self.waiting_total > 0 {
            self.retry();
            if self.waiting_total == 0 {
                self.exchange.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        while let Some(at) = self.unrung.pop() {
            self.exchange.mailboxes[at].wake();
        }
    }

    /// Whether mail of some shard waits for room: then no accepted connection is read, and this is asked
    /// again soon.
    pub(crate) fn is_pushed_back(&self) -> bool {
        self.exchange.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether mail waits here, and [`Post::flush`] is to be called again soon.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting_total > 0
    }

    /// Call this before sleeping on [`Post::bell`]: `false` if there is mail, or a halt, and the shard must
    /// not sleep.
    pub(crate) fn park(&self) -> bool {
        self.exchange.mailboxes[self.at].park(|| self.is_halted())
    }

    /// After sleeping.
    pub(crate) fn unpark(&self) {
        self.exchange.mailboxes[self.at].unpark();
    }

    /// Whether this shard is to return without being asked by its core.
    pub(crate) fn is_halted(&self) -> bool {
        self.exchange.halted.load(Ordering::SeqCst)
    }

    /// The eventfd that is written to wake this shard; it need not be read.
    pub(crate) fn bell(&self) -> RawFd {
        self.exchange.mailboxes[self.at].bell().as_raw_fd()
    }

    fn me(&self) -> ShardId {
        self.exchange.ids[self.at]
    }

    fn retry(&mut self) {
        for at in 0..self.waiting.len() {
            while let Some(mail) = self.waiting[at].pop_front() {
                self.waiting_total -= 1;
                if let Some(mail) = self.offer(at, mail) {
                    self.waiting[at].push_front(mail);
                    self.waiting_total += 1;
                    break;
                }
            }
        }
    }

    /// Gives the mail back when the mailbox is full. A stopped shard's mail is dropped.
    fn offer(&mut self, at: usize, mail: M) -> Option<M> {
        let mailbox = &self.exchange.mailboxes[at];
        if mailbox.is_stopped() {
            self.stats.mail_dropped.add(1);
            return None;
        }
        match mailbox.push((self.me(), mail)) {
            Ok(()) => {
                if !self.unrung.contains(&at) {
                    self.unrung.push(at);
                }
                None
            }
            Err((_, mail)) => {
                mailbox.wake();
                Some(mail)
            }
        }
    }
}

impl<M, R> Drop for Post<M, R> {
    fn drop(&mut self) {
        if self.waiting_total > 0 {
            // Nobody waits for this shard's mail any more.
            self.exchange.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    const A: ShardId = ShardId::new(0, 0);
    const B: ShardId = ShardId::new(0, 1);

    type Pair = (Post<u32, u8>, Post<u32, u8>, Remote<u32>, Receiver<Envelope<u8>>);

    fn pair() -> Pair {
        let (exchange, (sender, control)) = (Exchange::new(vec![A, B]).unwrap(), bounded(1));
        let end = |at| Post::new(exchange.clone(), sender.clone(), at, Arc::default());
        (end(0), end(1), exchange.remote(), control)
    }

    #[test]
    fn what_does_not_fit_waits_in_order() {
        let (mut a, mut b, ..) = pair();
        let count = 3 * MAILBOX_CAPACITY as u32;
        for number in 0..count {
            a.send(B, number);
        }
        assert!(a.is_pushed_back());
        let mut taken = 0;
        while a.is_pushed_back() || taken < count {
            a.flush();
            while let Some((from, number)) = b.take() {
                assert_eq!((from, number), (A, taken));
                taken += 1;
            }
        }
        assert_eq!(taken, count);
    }

    #[test]
    fn a_shard_with_mail_does_not_park() {
        let (mut a, mut b, remote, _control) = pair();
        assert!(b.park());
        b.unpark();
        a.send(B, 1);
        a.flush();
        assert!(!b.park());
        assert_eq!(b.take(), Some((A, 1)));
        remote.send(B, 2).unwrap();
        assert!(!b.park());
        assert_eq!(b.take(), Some((ShardId::CONTROL, 2)));
        assert!(b.park());
    }

    #[test]
    fn what_waits_anywhere_stops_all_readers() {
        let ids = (0..3).map(|at| ShardId::new(0, at)).collect::<Vec<_>>();
        let (exchange, (control, _)) = (Exchange::new(ids.clone()).unwrap(), bounded(1));
        let mut posts: Vec<Post<u32, u8>> =
            (0..3).map(|at| Post::new(exchange.clone(), control.clone(), at, Arc::default())).collect();
        // The last reads and mails the first, which forwards to the second, which is slow.
        let mut read = 0;
        while !posts[2].is_pushed_back() {
            posts[2].send(ids[0], read);
            posts[2].flush();
            while let Some((_, number)) = posts[0].take() {
                posts[0].send(ids[1], number);
            }
            posts[0].flush();
            read += 1;
            assert!(read <= 2 * MAILBOX_CAPACITY as u32, "it reads on, and {} wait", posts[0].waiting_total);
        }
        assert!(posts[0].has_waiting() && !posts[2].has_waiting());
        for number in 0..read {
            assert_eq!(posts[1].take(), Some((ids[0], number)));
            posts[0].flush();
        }
        assert!(posts.iter().all(|post| !post.is_pushed_back() && !post.has_waiting()));
        // A shard that ends does not hold the others up.
        (0..=MAILBOX_CAPACITY as u32).for_each(|number| posts[0].send(ids[1], number));
        assert!(posts[2].is_pushed_back());
        posts.remove(0);
        assert!(!posts[1].is_pushed_back());
    }

    #[test]
    fn a_stopped_shard_pushes_nobody_back() {
        let (mut a, b, remote, control) = pair();
        for number in 0..2 * MAILBOX_CAPACITY as u32 {
            a.send(B, number);
        }
        b.exchange.retire(1);
        a.flush();
        assert!(!a.is_pushed_back());
        assert_eq!(remote.send(B, 7), Err(7));
        assert_eq!(remote.send(ShardId::new(9, 9), 8), Err(8));
        a.report(9);
        a.report(10);
        assert_eq!(control.try_recv(), Ok((A, 9)));
        assert!(control.try_recv().is_err(), "nobody waits for a control thread that is behind");
    }
}
