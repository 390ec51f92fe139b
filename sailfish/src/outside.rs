//! What lies outside of the cores: the bridge of this process (without one, its events are counted and
//! logged), and the directory.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use node::{Origin, Outside, Unbridged};
use shard::{Instant, ShardId};
use tracing::{trace, warn};
use wire::client::FailReason;
use wire::node::{FoundSeat, Handed, ToBridge, ToDirectory};

use crate::bridge::Door;
use crate::directory::{Binding, Record, Writer};

/// How often lost messages are logged at most; each line has the totals.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The surroundings of a shard of this process.
pub struct Surroundings {
    id: ShardId,
    no_bridge: NoBridge,
    /// The bridge of this process, if it has one.
    bridge: Option<Door>,
    /// Empty until the directory has started, and for good where there is none.
    directory: Arc<OnceLock<Writer>>,
}

impl Surroundings {
    /// The surroundings of the shard `id`.
    pub fn new(id: ShardId, bridge: Option<Door>, directory: Arc<OnceLock<Writer>>) -> Self {
        Self { id, no_bridge: NoBridge::default(), bridge, directory }
    }
}

impl Outside for Surroundings {
    fn bridge(&mut self, _now: Instant, of: Origin, handed: Handed) {
        let bridge = self.bridge.as_ref().expect("only a process with a bridge is given events for it");
        bridge.hand(self.id, of, handed);
    }

    fn no_bridge(&mut self, now: Instant, event: &ToBridge) {
        self.no_bridge.note(now, event);
    }

    fn directory(&mut self, _now: Instant, record: ToDirectory) {
        let Some(writer) = self.directory.get() else { return };
        writer.push(match record {
            ToDirectory::Bind { app, user, seat: FoundSeat { seat, session, incarnation } } => {
                Record::Bind(Binding {
                    app,
                    user,
                    device: seat.device,
                    shard: ShardId::from_u32(seat.shard),
                    incarnation,
                    session: session.0,
                    login: seat.login.0,
                })
            }
            ToDirectory::Unbind { app, user, device, login } => {
                Record::Unbind { app, user, device, login: login.0 }
            }
            ToDirectory::LookUp { app, user } => Record::LookUp { from: self.id, app, user },
            ToDirectory::Keep { app, room, entry } => Record::Keep { from: self.id, app, room, entry },
            ToDirectory::Read { app, room } => Record::Read { from: self.id, app, room },
        });
    }

    fn unbridged(&self) -> Unbridged {
        self.no_bridge.counts()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.no_bridge.poll_timeout()
    }

    fn timeout(&mut self, now: Instant) {
        self.no_bridge.handle_timeout(now);
    }

    fn end(&mut self, now: Instant) {
        self.no_bridge.handle_end(now);
    }
}

/// Stands in for the bridge.
#[derive(Default)]
pub struct NoBridge {
    counts: Unbridged,
    /// How many were lost since the last line.
    unlogged: u64,
    /// When the next line may be written.
    log_from: Instant,
}

impl NoBridge {
    /// The counts so far.
    fn counts(&self) -> Unbridged {
        self.counts
    }

    /// Counts an event, and logs it if it is a message.
    fn note(&mut self, now: Instant, event: &ToBridge) {
        match event {
            ToBridge::Online { app, user, device, login: _ } => {
                self.counts.online += 1;
                trace!(app = app.0, user = user.0, device = device.name(), "online");
            }
            ToBridge::Offline { app, user, device, login: _ } => {
                self.counts.offline += 1;
                trace!(app = app.0, user = user.0, device = device.name(), "offline");
            }
            ToBridge::Joined { app, user, room, .. } => {
                self.counts.joined += 1;
                trace!(app = app.0, user = user.0, room = room.0, "joined");
            }
            ToBridge::Left { app, user, room, .. } => {
                self.counts.left += 1;
                trace!(app = app.0, user = user.0, room = room.0, "left");
            }
            ToBridge::Undelivered { user, reason, message, delivery: _ } => {
                let at = FailReason::ALL.iter().position(|known| known == reason);
                self.counts.undelivered[at.expect("ALL has every reason")] += 1;
                trace!(
                    app = message.app.0,
                    user = user.0,
                    id = message.id.0,
                    reason = reason.name(),
                    "undelivered"
                );
                self.lost(now);
            }
            ToBridge::Request { .. } => {
                self.counts.requests += 1;
                self.lost(now);
            }
        }
    }

    /// Logs what was lost since the last line, if a line is due.
    fn handle_timeout(&mut self, now: Instant) {
        if self.unlogged > 0 && now >= self.log_from {
            self.log(now);
        }
    }

    /// Logs what no line has reported yet, as there will be no later one.
    fn handle_end(&mut self, now: Instant) {
        if self.unlogged > 0 {
            self.log(now);
        }
    }

    /// When the next line is due.
    fn poll_timeout(&self) -> Option<Instant> {
        (self.unlogged > 0).then_some(self.log_from)
    }

    fn lost(&mut self, now: Instant) {
        self.unlogged += 1;
        if now >= self.log_from {
            self.log(now);
        }
    }

    fn log(&mut self, now: Instant) {
        let undelivered =
            FailReason::ALL.into_iter().zip(self.counts.undelivered).filter(|(_, count)| *count > 0);
        let undelivered: Vec<String> =
            undelivered.map(|(reason, count)| format!("{} {count}", reason.name())).collect();
        warn!(
            new = self.unlogged,
            requests_total = self.counts.requests,
            undelivered_total = undelivered.join(", "),
            "messages for the backend were dropped: no bridge is configured"
        );
        self.unlogged = 0;
        self.log_from = now + LOG_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wire::client::Message;
    use wire::node::DeliveryId;
    use wire::{AppId, BizCode, ClientMsgId, MessageId, UserId};

    use super::*;

    const NOW: Instant = Instant::from_unix_nanos(1 << 60);

    fn undelivered(reason: FailReason) -> ToBridge {
        let message = Message {
            id: MessageId(1),
            app: AppId(1),
            sender: UserId(2),
            biz_code: BizCode(6001),
            room: None,
            sequence: 0,
            ack_wanted: true,
            client_msg_id: ClientMsgId::default(),
            payload: Bytes::new(),
        };
        ToBridge::Undelivered { user: UserId(3), reason, message, delivery: DeliveryId::NONE }
    }

    #[test]
    fn losses_are_counted_by_reason_and_logged_at_most_so_often() {
        let mut bridge = NoBridge::default();
        for reason in [FailReason::Offline, FailReason::Unacked, FailReason::Offline] {
            bridge.note(NOW, &undelivered(reason));
        }
        assert_eq!(bridge.counts().undelivered[..2], [2, 1]);
        assert_eq!(bridge.unlogged, 2, "the first was logged at once");
        let due = bridge.poll_timeout().unwrap();
        assert_eq!(due, NOW + LOG_EVERY);
        bridge.handle_timeout(due);
        assert_eq!((bridge.unlogged, bridge.poll_timeout()), (0, None));
    }
}
