//! Mail between the shards of a process, and to and from the control thread.
//!
//! Push-back: mail that finds a mailbox full waits in its sender's [`Post`], one queue for each destination, so the order
//! of a pair is kept. While [`Post::is_pushed_back`], an engine reads no socket; it still takes mail and retries in every
//! turn. Two shards that push each other back at once both go on taking mail, so neither waits for ever.
//!
//! Waking: a shard about to sleep raises a flag and looks into its mailbox once more; a sender puts the mail in first and
//! looks at the flag after. A fence between the two steps on either side makes sure that one of them sees the other, so the
//! eventfd is written only for a shard that sleeps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::ArrayQueue;
use shard::ShardId;

use crate::Stats;
use crate::sys::EventFd;

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
        if mailbox.stopped.load(Ordering::Acquire) {
            return Err(mail);
        }
        mailbox.queue.push((ShardId::CONTROL, mail)).map_err(|(_, mail)| mail)?;
        mailbox.wake();
        Ok(())
    }
}

/// All mailboxes of a process.
pub(crate) struct Exchange<M> {
    ids: Vec<ShardId>,
    mailboxes: Vec<Mailbox<M>>,
    control: Sender<Envelope<M>>,
    /// Set when a shard fails or nobody wants them any more: all return as soon as they can.
    halted: AtomicBool,
}

impl<M> Exchange<M> {
    /// Mailboxes for `ids`, and the control thread's end.
    pub(crate) fn new(ids: Vec<ShardId>) -> io::Result<(Arc<Self>, Receiver<Envelope<M>>)> {
        let (control, receiver) = crossbeam_channel::bounded(MAILBOX_CAPACITY);
        let mailboxes = ids.iter().map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>()?;
        Ok((Arc::new(Self { ids, mailboxes, control, halted: AtomicBool::new(false) }), receiver))
    }

    pub(crate) fn remote(self: &Arc<Self>) -> Remote<M> {
        Remote { exchange: self.clone() }
    }

    /// Makes every shard return.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
        for mailbox in &self.mailboxes {
            mailbox.bell.signal();
        }
    }

    /// The shard at `at` takes no mail any more.
    pub(crate) fn retire(&self, at: usize) {
        self.mailboxes[at].stopped.store(true, Ordering::Release);
    }

    fn index_of(&self, id: ShardId) -> Option<usize> {
        let guess = id.index() as usize;
        match self.ids.get(guess) {
            Some(&found) if found == id => Some(guess),
            _ => self.ids.iter().position(|&found| found == id),
        }
    }
}

struct Mailbox<M> {
    queue: ArrayQueue<Envelope<M>>,
    asleep: AtomicBool,
    stopped: AtomicBool,
    bell: EventFd,
}

impl<M> Mailbox<M> {
    fn new() -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(MAILBOX_CAPACITY),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            bell: EventFd::new()?,
        })
    }

    fn wake(&self) {
        fence(Ordering::SeqCst); // the push before the look at the flag
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.bell.signal();
        }
    }
}

/// A shard's own end of the exchange.
pub(crate) struct Post<M> {
    exchange: Arc<Exchange<M>>,
    at: usize,
    stats: Arc<Stats>,
    /// What did not fit, for each destination.
    waiting: Vec<VecDeque<M>>,
    waiting_total: usize,
    /// Destinations that got mail since the last flush.
    unrung: Vec<usize>,
}

impl<M> Post<M> {
    pub(crate) fn new(exchange: Arc<Exchange<M>>, at: usize, stats: Arc<Stats>) -> Self {
        let waiting = exchange.ids.iter().map(|_| VecDeque::new()).collect();
        Self { exchange, at, stats, waiting, waiting_total: 0, unrung: Vec::new() }
    }

    /// The next mail for this shard.
    pub(crate) fn take(&mut self) -> Option<Envelope<M>> {
        let taken = self.exchange.mailboxes[self.at].queue.pop();
        if taken.is_some() {
            self.stats.mail_in.add(1);
        }
        taken
    }

    /// Takes `mail` for `to`: delivers it or keeps it waiting. The receiver is woken by the next [`Post::flush`].
    pub(crate) fn send(&mut self, to: ShardId, mail: M) {
        self.stats.mail_out.add(1);
        if to == ShardId::CONTROL {
            if self.exchange.control.try_send((self.me(), mail)).is_err() {
                self.stats.mail_dropped.add(1);
            }
            return;
        }
        let Some(at) = self.exchange.index_of(to) else {
            self.stats.mail_dropped.add(1);
            return;
        };
        let refused = if self.waiting[at].is_empty() { self.offer(at, mail) } else { Some(mail) };
        if let Some(mail) = refused {
            self.stats.mail_overflows.add(1);
            self.waiting[at].push_back(mail);
            self.waiting_total += 1;
        }
    }

    /// Delivers what waits as far as it fits, and wakes the sleeping shards that got mail. Once a turn.
    pub(crate) fn flush(&mut self) {
        if self.waiting_total > 0 {
            self.retry();
        }
        while let Some(at) = self.unrung.pop() {
            self.exchange.mailboxes[at].wake();
        }
    }

    /// Whether mail waits here for room in another mailbox: then no socket is read, and [`Post::flush`] is called again soon.
    pub(crate) fn is_pushed_back(&self) -> bool {
        self.waiting_total > 0
    }

    /// Before sleeping on [`Post::bell`]: `false` when there is mail, or a halt, so that there is no time to sleep.
    pub(crate) fn park(&self) -> bool {
        let mailbox = &self.exchange.mailboxes[self.at];
        mailbox.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // the flag before the look at the queue
        let idle = mailbox.queue.is_empty() && !self.is_halted();
        if !idle {
            self.unpark();
        }
        idle
    }

    /// After sleeping.
    pub(crate) fn unpark(&self) {
        self.exchange.mailboxes[self.at].asleep.store(false, Ordering::Relaxed);
    }

    /// Whether this shard is to return without being asked by its core.
    pub(crate) fn is_halted(&self) -> bool {
        self.exchange.halted.load(Ordering::SeqCst)
    }

    /// The eventfd that is written to wake this shard; it need not be read.
    pub(crate) fn bell(&self) -> RawFd {
        self.exchange.mailboxes[self.at].bell.as_raw_fd()
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
        if mailbox.stopped.load(Ordering::Acquire) {
            self.stats.mail_dropped.add(1);
            return None;
        }
        match mailbox.queue.push((self.me(), mail)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId::new(0, 0);
    const B: ShardId = ShardId::new(0, 1);

    fn pair() -> (Post<u32>, Post<u32>, Remote<u32>, Receiver<Envelope<u32>>) {
        let (exchange, control) = Exchange::new(vec![A, B]).unwrap();
        let end = |at| Post::new(exchange.clone(), at, Arc::default());
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
        a.send(ShardId::CONTROL, 9);
        assert_eq!(control.try_recv(), Ok((A, 9)));
    }
}
