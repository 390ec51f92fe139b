//! How much of an inbox a sender may fill. A kept message never gives way to another, so a message that does
//! not fit is refused at once.
//!
//! - A sender may have a tenth of what is free in a receiver's inbox; a sender who has nothing there needs
//!   only to fit. So however much a few have sent, there is room for another one.
//! - A sender may have so much in all inboxes together.
//! - The backend's own messages (sender 0) count for themselves: those of others take no room from them, nor
//!   they from others.

use crate::config::Config;
use crate::tables::inbox::InboxRow;
use crate::tables::inbox_total::{self, BACKEND, Key, Share, Totals};

/// What is kept at the moment, and what may be.
pub struct Shares {
    /// The limit for one receiver; the backend's own messages have the same limit besides.
    receiver_max: Share,
    /// The limit for one sender.
    sender_max: Share,
    /// The sums for the messages to judge.
    totals: Totals,
}

impl Shares {
    /// Begins with the sums for the receivers and senders of the messages to judge.
    pub fn new(config: &Config, totals: Totals) -> Self {
        let share = |messages: u32, bytes: u64| Share {
            messages: i64::from(messages),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        let receiver_max = share(config.inbox_messages_max, config.inbox_bytes_max);
        let sender_max = share(config.inbox_sender_messages_max, config.inbox_sender_bytes_max);
        Self { receiver_max, sender_max, totals }
    }

    /// Counts a message as kept, if it fits; otherwise returns why not.
    pub fn take(&mut self, message: &InboxRow) -> Result<(), &'static str> {
        let one = Share { messages: 1, bytes: message.bytes() };
        let place = message.place();
        let total = |key: Key| self.totals.get(&key).copied().unwrap_or_default();
        let mine = total(Key::of_pair(place));
        if message.sender == BACKEND {
            if !mine.plus(one).fits(self.receiver_max) {
                return Err("inbox_full");
            }
        } else {
            let all = total(Key::of_inbox(place));
            if !all.plus(one).fits(self.receiver_max) {
                return Err("inbox_full");
            }
            if mine.messages > 0 && !mine.plus(one).fits(self.receiver_max.minus(all).tenth()) {
                return Err("sender_share");
            }
            if !total(Key::of_sender(place)).plus(one).fits(self.sender_max) {
                return Err("sender_total");
            }
        }
        inbox_total::count(&mut self.totals, place, one);
        Ok(())
    }
}

impl Share {
    fn plus(self, other: Share) -> Share {
        Share { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Share) -> Share {
        Share { messages: self.messages - other.messages, bytes: self.bytes - other.bytes }
    }

    fn tenth(self) -> Share {
        Share { messages: self.messages / SHARES, bytes: self.bytes / SHARES }
    }

    fn fits(self, max: Share) -> bool {
        self.messages <= max.messages && self.bytes <= max.bytes
    }
}

/// A sender may have this part (a tenth) of what is free.
const SHARES: i64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Shares {
        Shares::new(&Config::default(), Totals::new())
    }

    fn message(sender: i64, user_id: i64, bytes: usize) -> InboxRow {
        let (app, biz_code, client_msg_id) = (1, 6001, String::new());
        InboxRow { app, user_id, message_id: 0, sender, biz_code, client_msg_id, data: vec![0; bytes] }
    }

    /// How many messages of a sender one after the other are kept.
    fn fill(shares: &mut Shares, sender: i64, receiver: i64, bytes: usize) -> usize {
        (0..20_000).take_while(|_| shares.take(&message(sender, receiver, bytes)).is_ok()).count()
    }

    #[test]
    fn many_strangers_leave_room_for_one_more() {
        let mut shares = shares();
        assert_eq!(fill(&mut shares, 1, 7, 1), 91);
        assert_eq!(shares.take(&message(1, 7, 1)), Err("sender_share"));
        for stranger in 2..40 {
            assert!(fill(&mut shares, stranger, 7, 1) > 0);
        }
        assert_eq!(shares.take(&message(99, 7, 1)), Ok(()), "a friend's");
        assert_eq!(fill(&mut shares, 1, 8, 1), 91, "another receiver's is as free as before");
    }

    #[test]
    fn bytes_count_as_messages_do() {
        let (mut shares, config) = (shares(), Config::default());
        let bytes = 65_000;
        let kept = fill(&mut shares, 1, 7, bytes) as u64 * bytes as u64;
        assert!((config.inbox_bytes_max / 12..config.inbox_bytes_max / 10).contains(&kept), "{kept}");
        let all: usize = (2..2_000).map(|sender| fill(&mut shares, sender, 7, bytes)).sum();
        assert!(kept + (all * bytes) as u64 <= config.inbox_bytes_max);
        assert_eq!(shares.take(&message(5_000, 7, bytes)), Err("inbox_full"), "full of whole messages");
        assert_eq!(shares.take(&message(5_000, 7, 10)), Ok(()));
    }

    #[test]
    fn a_sender_has_a_share_of_all_inboxes() {
        let (mut shares, config) = (shares(), Config::default());
        let kept: usize = (1..1_000).map(|receiver| fill(&mut shares, 1, receiver, 1)).sum();
        assert_eq!(kept, config.inbox_sender_messages_max as usize);
        assert_eq!(shares.take(&message(1, 5_000, 1)), Err("sender_total"));
        assert_eq!(shares.take(&message(2, 5_000, 1)), Ok(()));
        let mut shares = self::shares();
        let kept: usize = (1..5_000).map(|receiver| fill(&mut shares, 1, receiver, 60_000)).sum();
        assert_eq!(kept as u64, config.inbox_sender_bytes_max / 60_000);
    }

    #[test]
    fn what_the_backend_sends_counts_for_itself() {
        let (mut shares, config) = (shares(), Config::default());
        let own = config.inbox_messages_max as usize;
        assert_eq!(fill(&mut shares, BACKEND, 7, 1), own);
        assert_eq!(shares.take(&message(BACKEND, 7, 1)), Err("inbox_full"));
        assert_eq!(fill(&mut shares, 1, 7, 1), 91);
        for stranger in 2..5_000 {
            fill(&mut shares, stranger, 8, 1);
        }
        assert_eq!(shares.take(&message(6_000, 8, 1)), Err("inbox_full"));
        assert_eq!(fill(&mut shares, BACKEND, 8, 1), own);
    }
}
