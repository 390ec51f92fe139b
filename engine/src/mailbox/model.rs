//! Every order in which a shard and those that mail it can meet, tried by loom.
//!
//! `slot.rs` is compiled once more here, on loom's atomics. Its queue and its eventfd are models, no stronger
//! than what they stand for: the queue orders nothing but each item's own hand-over, and a bell that nobody
//! listens to yet is kept.

use std::sync::Arc;

use loom::thread;

#[path = "slot.rs"]
#[allow(clippy::duplicate_mod, dead_code)] // twice on purpose, and the models have no use for all of it
mod slot;

use slot::Mailbox;

/// Stands for the parent's module of that name.
mod sync {
    use std::io;

    use loom::sync::atomic::AtomicUsize;
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    use loom::sync::{Condvar, Mutex};

    /// A ring of places; each has what was put in, and whether it was.
    pub(super) struct ArrayQueue<T> {
        places: Vec<(AtomicBool, std::sync::Mutex<Option<T>>)>,
        head: AtomicUsize,
        tail: AtomicUsize,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            let place = |_| (AtomicBool::new(false), std::sync::Mutex::new(None));
            Self {
                places: (0..capacity).map(place).collect(),
                head: AtomicUsize::new(0),
                tail: AtomicUsize::new(0),
            }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            let mut tail = self.tail.load(Ordering::Relaxed);
            loop {
                // A tail that is no longer the tail may be behind the head.
                let taken = tail.saturating_sub(self.head.load(Ordering::Acquire));
                if taken >= self.places.len() {
                    return Err(item);
                }
                match self.tail.compare_exchange(tail, tail + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(other) => tail = other,
                }
            }
            let (is_there, place) = &self.places[tail % self.places.len()];
            *place.lock().expect("nobody panics with it") = Some(item);
            is_there.store(true, Ordering::Release);
            Ok(())
        }

        /// Only one thread takes.
        pub(super) fn pop(&self) -> Option<T> {
            let head = self.head.load(Ordering::Relaxed);
            let (is_there, place) = &self.places[head % self.places.len()];
            if !is_there.load(Ordering::Acquire) {
                return None;
            }
            is_there.store(false, Ordering::Relaxed);
            let item = place.lock().expect("nobody panics with it").take();
            self.head.store(head + 1, Ordering::Release);
            item
        }

        pub(super) fn is_empty(&self) -> bool {
            self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Relaxed)
        }
    }

    /// How often it was signalled, and how often the owner has heard that.
    pub(super) struct EventFd(Mutex<(usize, usize)>, Condvar);

    impl EventFd {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Mutex::new((0, 0)), Condvar::new()))
        }

        pub(super) fn signal(&self) {
            self.0.lock().expect("nobody panics with it").0 += 1;
            self.1.notify_one();
        }

        pub(super) fn wait(&self) {
            let mut state = self.0.lock().expect("nobody panics with it");
            while state.0 == state.1 {
                state = self.1.wait(state).expect("nobody panics with it");
            }
            state.1 = state.0;
        }

        pub(super) fn signals(&self) -> usize {
            self.0.lock().expect("nobody panics with it").0
        }
    }
}

/// One turn's end, as engines do it.
fn sleep(mailbox: &Mailbox<u32>, is_halted: impl FnOnce() -> bool) {
    if mailbox.park(is_halted) {
        mailbox.bell().wait();
        mailbox.unpark();
    }
}

/// A turn that takes what there is until `count` have come; a wake-up that is lost is a deadlock, which loom
/// finds.
fn take(mailbox: &Mailbox<u32>, count: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    loop {
        while let Some(mail) = mailbox.pop() {
            taken.push(mail);
        }
        if taken.len() == count {
            return taken;
        }
        sleep(mailbox, || false);
        thread::yield_now(); // a place may be taken and not yet filled
    }
}

/// All orders with at most `preemptions` switches of threads that were not waiting.
fn all_orders(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);

    builder.check(model);
}

#[test]
fn no_mail_is_slept_over() {
    all_orders(4, || {
        let mailbox = Arc::new(Mailbox::new(2).expect("a model does not fail"));
        let sender = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for mail in 1..=2 {
                    mailbox.push(mail).expect("there is room");
                    mailbox.wake();
                }
            })
        };
        assert_eq!(take(&mailbox, 2), [1, 2]);
        sender.join().expect("it does not panic");
    });
}

#[test]
fn two_senders_wake_one_sleeper_once() {
    all_orders(3, || {
        let mailbox = Arc::new(Mailbox::new(2).expect("a model does not fail"));
        let senders = [1, 2].map(|mail| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                mailbox.push(mail).expect("there is room");
                mailbox.wake();
            })
        });
        let mut taken = take(&mailbox, 2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        senders.into_iter().for_each(|sender| sender.join().expect("it does not panic"));
        assert!(mailbox.bell().signals() <= 2, "a system call for each sleep at most");
    });
}

#[test]
fn a_full_mailbox_wakes_its_owner_and_has_room_again() {
    all_orders(3, || {
        let mailbox = Arc::new(Mailbox::new(1).expect("a model does not fail"));
        let sender = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for mail in 1..=2 {
                    while mailbox.push(mail).is_err() {
                        mailbox.wake();
                        thread::yield_now();
                    }
                    mailbox.wake();
                }
            })
        };
        assert_eq!(take(&mailbox, 2), [1, 2]);
        sender.join().expect("it does not panic");
    });
}

#[test]
fn a_halt_is_not_slept_over() {
    use loom::sync::atomic::{AtomicBool, Ordering};
    all_orders(4, || {
        let mailbox = Arc::new(Mailbox::new(1).expect("a model does not fail"));
        let halted = Arc::new(AtomicBool::new(false));
        let control = {
            let (mailbox, halted) = (mailbox.clone(), halted.clone());
            thread::spawn(move || {
                halted.store(true, Ordering::SeqCst);
                mailbox.ring();
            })
        };
        while !halted.load(Ordering::SeqCst) {
            sleep(&mailbox, || halted.load(Ordering::SeqCst));
            thread::yield_now();
        }
        control.join().expect("it does not panic");
    });
}
