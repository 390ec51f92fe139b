//! Messages to users. A client's ack takes time, so a push of a row waits for its outcome, without delaying
//! others: a user has at most one call under way, with a share of that call's messages, and users who do not
//! ack at once have calls of their own. Messages without a row have calls of their own, too. These wait until
//! the router has the message, but not for an ack, so their callers are not delayed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logs::{error, warn};
use tokio::sync::Notify;

use super::{Item, Outbox, Pusher, WAIT, is_done, lock, pause, push_item};
use crate::push::{PUSHES_MAX, PushItem};
use crate::stop::Stop;

/// How soon a user acks, as far as known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Acked all of the last call in time; or not known yet.
    Prompt,
    /// Did not.
    Slow,
}

impl Pace {
    pub(super) const ALL: [Self; 2] = [Self::Prompt, Self::Slow];
}

/// The kinds of messages of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Messages with a row.
    Rows,
    /// Messages without a row.
    Mentions,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Rows, Self::Mentions];

    /// How long a call waits for outcomes.
    const fn wait(self) -> Duration {
        match self {
            Self::Rows => WAIT,
            Self::Mentions => MENTION_WAIT,
        }
    }

    const fn of(self, outbox: &Outbox) -> &Users {
        match self {
            Self::Rows => &outbox.rows_to_users,
            Self::Mentions => &outbox.mentions_to_users,
        }
    }
}

/// Waiting messages for users, of one kind.
#[derive(Default)]
pub(super) struct Users {
    waiting: Mutex<Waiting>,
    filled: [Notify; 2],
}

#[derive(Default)]
struct Waiting {
    by_user: HashMap<i64, OfUser>,
    /// Users who wait for a call, of each pace, in the order of their turns.
    turns: [VecDeque<i64>; 2],
}

/// The messages of one user, who is in a queue of turns or has a call under way.
struct OfUser {
    items: VecDeque<Item>,
    is_under_way: bool,
    pace: Pace,
}

/// The messages of one call.
struct Batch {
    users: Vec<i64>,
    items: Vec<(i64, Item)>,
}

impl Users {
    pub(super) fn queue(&self, user_id: i64, item: Item) {
        let mut waiting = lock(&self.waiting);
        let Waiting { by_user, turns } = &mut *waiting;
        let of_user = by_user.entry(user_id).or_insert_with(|| {
            turns[Pace::Prompt as usize].push_back(user_id);
            OfUser { items: VecDeque::new(), is_under_way: false, pace: Pace::Prompt }
        });
        of_user.items.push_back(item);
        let filled = (!of_user.is_under_way).then_some(of_user.pace);
        drop(waiting);
        if let Some(pace) = filled {
            self.filled[pace as usize].notify_one();
        }
    }

    /// The next messages, of users of that pace in turn; `None` if there are none. Then call [`Users::end`].
    fn take(&self, pace: Pace) -> Option<Batch> {
        let mut waiting = lock(&self.waiting);
        let Waiting { by_user, turns } = &mut *waiting;
        let turns = &mut turns[pace as usize];
        let mut batch = Batch { users: Vec::new(), items: Vec::new() };
        while batch.items.len() + SHARE <= PUSHES_MAX
            && let Some(user_id) = turns.pop_front()
        {
            let of_user = by_user.get_mut(&user_id).expect("who waits for a turn has messages");
            let count = of_user.items.len().min(SHARE);
            batch.items.extend(of_user.items.drain(..count).map(|item| (user_id, item)));
            of_user.is_under_way = true;
            batch.users.push(user_id);
        }
        if !turns.is_empty() {
            self.filled[pace as usize].notify_one(); // for another call
        }
        (!batch.users.is_empty()).then_some(batch)
    }

    /// Puts a message back, before the user's other messages.
    fn put_back(&self, user_id: i64, item: Item) {
        let mut waiting = lock(&self.waiting);
        let of_user = waiting.by_user.get_mut(&user_id).expect("a user stays while a call is under way");
        of_user.items.push_front(item);
    }

    /// Ends a call; `slow` users have not acked all. Users with more messages wait for the next turn.
    fn end(&self, users: &[i64], slow: &[i64]) {
        let mut waiting = lock(&self.waiting);
        let Waiting { by_user, turns } = &mut *waiting;
        for user_id in users {
            let of_user = by_user.get_mut(user_id).expect("a user stays while a call is under way");
            if of_user.items.is_empty() {
                by_user.remove(user_id);
                continue;
            }
            of_user.is_under_way = false;
            of_user.pace = if slow.contains(user_id) { Pace::Slow } else { Pace::Prompt };
            turns[of_user.pace as usize].push_back(*user_id);
        }
        let filled = Pace::ALL.map(|pace| !turns[pace as usize].is_empty());
        drop(waiting);
        for (notify, _) in self.filled.iter().zip(filled).filter(|(_, is_filled)| *is_filled) {
            notify.notify_one();
        }
    }
}

/// Makes calls of a kind for users of a pace, one after the other.
pub(super) async fn push(pusher: Arc<Pusher>, kind: Kind, pace: Pace, mut stop: Stop) {
    let users = kind.of(&pusher.outbox);
    let mut failures = 0;
    while !stop.is_due() {
        let Some(Batch { users: of, items }) = users.take(pace) else {
            tokio::select! {
                biased; // either wakes it up
                () = stop.wait() => {}
                () = users.filled[pace as usize].notified() => {}
            }
            continue;
        };
        let Pushed { slow, is_away } = push_batch(&pusher, kind, items, failures).await;
        users.end(&of, &slow);
        if !is_away {
            failures = 0;
            continue;
        }
        failures += 1;
        tokio::select! {
            biased; // either ends the pause
            () = stop.wait() => {}
            () = tokio::time::sleep(pause(failures)) => {}
        }
    }
}

/// The result of a call.
#[derive(Default)]
struct Pushed {
    /// Users who have not acked all.
    slow: Vec<i64>,
    /// The push API does not take messages.
    is_away: bool,
}

async fn push_batch(pusher: &Pusher, kind: Kind, items: Vec<(i64, Item)>, failures: u32) -> Pushed {
    let mut pushed = Pushed::default();
    let mut batches = vec![items];
    while let Some(mut batch) = batches.pop() {
        let pushes: Vec<PushItem> = batch.iter().map(|(_, item)| push_item(&item.message)).collect();
        match pusher.push.send_within(&pushes, kind.wait()).await {
            Ok(outcomes) => {
                let (done, open): (Vec<_>, Vec<_>) =
                    batch.into_iter().zip(outcomes).partition(|((_, item), outcome)| is_done(item, outcome));
                let slow = done.iter().filter(|(_, outcome)| !outcome.is_final()).chain(&open);
                pushed.slow.extend(slow.map(|((user_id, _), _)| *user_id));
                pusher.outbox.finish(done.into_iter().map(|((_, item), _)| item));
                open.into_iter().for_each(|((_, item), _)| pusher.outbox.retry(item));
            }
            // One of them is invalid; halving finds it.
            Err(error) if error.status.is_client_error() && batch.len() == 1 => {
                error!(%error, message = ?batch[0].1.message, "the push API refuses a message as invalid; it is dropped");
                pusher.outbox.drop_refused(batch.into_iter().map(|(_, item)| item));
            }
            Err(error) if error.status.is_client_error() => {
                let second = batch.split_off(batch.len() / 2);
                batches.extend([second, batch]);
            }
            Err(error) => {
                if failures == 0 {
                    warn!(%error, "the push API does not accept messages; they wait");
                }
                pushed.is_away = true;
                let all = batches.drain(..).rev().flatten();
                let all: Vec<_> = batch.into_iter().chain(all).collect();
                for (user_id, item) in all.into_iter().rev() {
                    match kind {
                        Kind::Rows => kind.of(&pusher.outbox).put_back(user_id, item),
                        Kind::Mentions => pusher.outbox.retry(item),
                    }
                }
            }
        }
    }
    pushed
}

/// Messages of one user in a call.
const SHARE: usize = 32;
/// Long enough for a refusal that the router gives at once.
const MENTION_WAIT: Duration = Duration::from_millis(50);
/// Calls of each kind under way for users of each pace.
pub(super) const CALLS_MAX: usize = 8;
