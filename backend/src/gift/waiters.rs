//! Who waits for a gift to be decided.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Contents, Identity, Order};

/// Those who wait, by what for.
#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<Identity, Vec<Waiter>>>,
}

struct Waiter {
    contents: Contents,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Waiters {
    /// Waits for a gift from here on.
    pub fn wait(&self, identity: &Identity, contents: Contents) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.lock();
        let waiters = waiting.entry(identity.clone()).or_default();
        // Of a gift that is sent again and again, only those still count who wait.
        waiters.retain(|waiter| !waiter.answer.is_closed());
        waiters.push(Waiter { contents, since: Instant::now(), answer });
        answered
    }

    /// Tells those who wait for a gift; whether anybody did.
    pub fn tell(&self, identity: &Identity, order: &Order) -> bool {
        let waiters = self.lock().remove(identity).unwrap_or_default();
        let is_awaited = !waiters.is_empty();
        for waiter in waiters {
            let _ = waiter.answer.send(order.answer_for(&waiter.contents)); // who waited may have gone
        }
        is_awaited
    }

    /// Stops waiting for a gift, of which nobody is told.
    pub fn give_up(&self, identity: &Identity) {
        let mut waiting = self.lock();
        if let Some(waiters) = waiting.get_mut(identity) {
            waiters.retain(|waiter| !waiter.answer.is_closed());
            if waiters.is_empty() {
                waiting.remove(identity);
            }
        }
    }

    /// Gifts that somebody has waited for since before `then`.
    pub fn since_before(&self, then: Instant) -> Vec<Identity> {
        let waiting = self.lock();
        let is_old = |waiters: &Vec<Waiter>| waiters.iter().any(|waiter| waiter.since < then);
        let old = waiting.iter().filter(|(_, waiters)| is_old(waiters));
        old.map(|(identity, _)| identity.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Vec<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
