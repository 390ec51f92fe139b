//! The callers that wait for the decision on a gift.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::types::{Answer, Contents, Identity, Order};

/// The waiters, by gift.
#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<Identity, Vec<Waiter>>>,
}

/// One who waits.
pub struct Waiting<'a> {
    waiters: &'a Waiters,
    identity: &'a Identity,
    answered: oneshot::Receiver<Answer>,
}

impl Waiting<'_> {
    /// The answer of the gift.
    pub async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.answered.close();
        let mut waiting = self.waiters.lock();
        if let Some(waiters) = waiting.get_mut(self.identity) {
            waiters.retain(|waiter| !waiter.answer.is_closed());
            if waiters.is_empty() {
                waiting.remove(self.identity);
            }
        }
    }
}

struct Waiter {
    contents: Contents,
    since: Instant,
    /// Whether this process has the gift out of the queue, and will report it itself.
    is_here: bool,
    answer: oneshot::Sender<Answer>,
}

impl Waiters {
    /// Waits for a gift until the returned value is dropped. `is_here`: the gift goes to this process's
    /// consumer.
    pub fn wait<'a>(&'a self, identity: &'a Identity, contents: Contents, is_here: bool) -> Waiting<'a> {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { contents, since: Instant::now(), is_here, answer };
        self.lock().entry(identity.clone()).or_default().push(waiter);
        Waiting { waiters: self, identity, answered }
    }

    /// Answers the waiters of a gift. Returns whether there were any.
    pub fn tell(&self, identity: &Identity, order: &Order) -> bool {
        let waiters = self.lock().remove(identity).unwrap_or_default();
        let is_awaited = !waiters.is_empty();
        for waiter in waiters {
            let _ = waiter.answer.send(order.answer_for(&waiter.contents)); // who waited may have gone
        }
        is_awaited
    }

    /// Notes that these gifts are out of the queue, in this process.
    pub fn are_here<'a>(&self, identities: impl Iterator<Item = &'a Identity>) {
        let mut waiting = self.lock();
        for identity in identities {
            waiting.get_mut(identity).into_iter().flatten().for_each(|waiter| waiter.is_here = true);
        }
    }

    /// Gifts with waiters from before `then`, that another process may have.
    pub fn since_before(&self, then: Instant) -> Vec<Identity> {
        let waiting = self.lock();
        let is_old =
            |waiters: &Vec<Waiter>| waiters.iter().any(|waiter| !waiter.is_here && waiter.since < then);
        let old = waiting.iter().filter(|(_, waiters)| is_old(waiters));
        old.map(|(identity, _)| identity.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Vec<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stops_waiting_is_forgotten() {
        let waiters = Waiters::default();
        let identity = Identity { sender_id: 1, key: "a".into() };
        let contents = Contents { gift_id: 1, room_id: 2, receiver_id: 3, count: 1, code: 5556 };
        let (first, second) =
            (waiters.wait(&identity, contents, false), waiters.wait(&identity, contents, false));
        let known = || waiters.since_before(Instant::now() + std::time::Duration::from_secs(1)).len();
        waiters.are_here([&identity].into_iter());
        assert_eq!(known(), 0, "nobody else has it");
        let third = waiters.wait(&identity, contents, false);
        drop((first, third));
        assert_eq!(known(), 0);
        let first = waiters.wait(&identity, contents, false);
        drop(second);
        let second = waiters.wait(&identity, contents, false);
        drop(first);
        assert_eq!(known(), 1, "the second waits");
        drop(second);
        assert_eq!(known(), 0);
    }
}
