//! One shard's mailbox: a bounded queue, and the bell that wakes its owner.
//!
//! A shard about to sleep raises a flag and looks into its mailbox once more; a sender puts the mail in first
//! and looks at the flag after. A fence between the two steps on either side makes sure that one of them sees
//! the other, so the eventfd is written only for a shard that sleeps. The flag is only ever swapped: loom,
//! which tries every order of these steps in `model.rs`, knows no order between a store and a swap of another
//! thread. A swap costs what the fence does.

use std::io;

use super::sync::{ArrayQueue, AtomicBool, EventFd, Ordering, fence};

pub(super) struct Mailbox<T> {
    queue: ArrayQueue<T>,
    asleep: AtomicBool,
    stopped: AtomicBool,
    bell: EventFd,
}

impl<T> Mailbox<T> {
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(capacity),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            bell: EventFd::new()?,
        })
    }

    /// Gives the mail back when there is no room. The owner is woken by [`Mailbox::wake`].
    pub(super) fn push(&self, mail: T) -> Result<(), T> {
        self.queue.push(mail)
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Wakes the owner if it sleeps.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst); // the push before the look at the flag
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.bell.signal();
        }
    }

    /// Wakes the owner, or keeps it from its next sleep.
    pub(super) fn ring(&self) {
        self.bell.signal();
    }

    /// Before the owner sleeps: `false` when there is mail, or it is halted, so that there is no time to
    /// sleep.
    pub(super) fn park(&self, is_halted: impl FnOnce() -> bool) -> bool {
        self.asleep.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // the flag before the look at the queue
        let idle = self.queue.is_empty() && !is_halted();
        if !idle {
            self.unpark();
        }
        idle
    }

    /// After the owner slept.
    pub(super) fn unpark(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// The owner takes no mail any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// What [`Mailbox::wake`] and [`Mailbox::ring`] signal.
    pub(super) fn bell(&self) -> &EventFd {
        &self.bell
    }
}
