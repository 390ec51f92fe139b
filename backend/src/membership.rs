//! Who is where, as gateways and routers report: late, twice and in any order.
//!
//! In any order the same events give the same state, because each is compared with the known state, and its
//! time of arrival does not matter:
//! - A device is online if the highest stamp of a session that came, or joined a room, is above that of any
//!   that ended. Of equal stamps the end counts, since a session ends once.
//! - Of the reports about a device and a room, the last one counts: by the stamp, which may rise while the
//!   session lasts and is never below that of an earlier session; then by the event's number in the session's
//!   shard.
//! - A session has ended if its stamp is not above that of an end, or if it is so far below that of a session
//!   that came that it cannot be the same one. Further reports about it do not count.

mod write;

use std::collections::BTreeMap;

use logs::warn;

use crate::event::{Event, EventKind, Session};
use crate::tables::presence::{DEVICE_BYTES_MAX, Device, Presence};
use crate::tables::room_member::MemberRow;
pub use write::{end, take};

/// The contents of events.
#[derive(Default)]
pub struct Told {
    /// The highest stamps of each device in the events.
    pub presence: BTreeMap<Device, Presence>,
    members: Vec<MemberRow>,
}

/// The changes to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub put: Vec<MemberRow>,
    pub delete: Vec<(Device, i64)>,
}

/// Sums events up. Events about other things count for nothing.
pub fn told(events: &[Event]) -> Told {
    let mut told = Told::default();
    for event in events {
        let (session, room) = match &event.kind {
            EventKind::Online(session) | EventKind::Offline(session) => (session, None),
            EventKind::Join(membership) => (&membership.session, Some((membership.room, true))),
            EventKind::Leave(membership) => (&membership.session, Some((membership.room, false))),
            EventKind::Request(_) | EventKind::Undelivered(_) => continue,
        };
        let Some(device) = device_of(session) else {
            warn!(event = event.id, "ignored an event whose device class is too long");
            continue;
        };
        let login = login_of(session);
        let presence = told.presence.entry(device.clone()).or_default();
        match &event.kind {
            // A session that joins is online, even if a router died with its `online` event.
            EventKind::Online(_) | EventKind::Join(_) => {
                presence.online_login = presence.online_login.max(login);
            }
            EventKind::Offline(_) => presence.offline_login = presence.offline_login.max(login),
            _ => {}
        }
        if let Some((room_id, is_in)) = room {
            told.members.push(MemberRow { device, room_id, login, seq: seq_of(&event.id), is_in });
        }
    }
    told
}

/// The ends of sessions, each with its stamp, that no event reports.
pub fn ended(sessions: impl IntoIterator<Item = (Device, i64)>) -> Told {
    let end = |(device, login)| (device, Presence { online_login: 0, offline_login: login });
    Told { presence: sessions.into_iter().map(end).collect(), members: Vec::new() }
}

impl Told {
    /// The changes, given the devices' known state: their stamps, already raised by these events, and their
    /// rows.
    pub fn changes(self, presence: &BTreeMap<Device, Presence>, known: Vec<MemberRow>) -> Changes {
        let before: BTreeMap<(Device, i64), MemberRow> = known.into_iter().map(keyed).collect();
        let mut after = before.clone();
        for member in self.members {
            let (key, member) = keyed(member);
            match after.get(&key) {
                // Of equal ones the later counts, for shards whose events have no number.
                Some(known) if (known.login, known.seq) > (member.login, member.seq) => {}
                _ => {
                    after.insert(key, member);
                }
            }
        }
        let of = |device: &Device| presence.get(device).copied().unwrap_or_default();
        after.retain(|(device, _), member| !has_ended(of(device), member.login));
        forget_left(&mut after);
        let delete = before.keys().filter(|key| !after.contains_key(key)).cloned().collect();
        let put = after.into_iter().filter(|(key, member)| before.get(key) != Some(member));
        Changes { put: put.map(|(_, member)| member).collect(), delete }
    }
}

fn has_ended(presence: Presence, login: i64) -> bool {
    login <= presence.offline_login || login.saturating_add(SESSION_GAP_NS) <= presence.online_login
}

/// A room that was left is remembered until the session ends, since the join may come later. Of very many
/// left rooms only the latest are remembered.
fn forget_left(members: &mut BTreeMap<(Device, i64), MemberRow>) {
    let mut left: BTreeMap<&Device, Vec<(i64, i64, i64)>> = BTreeMap::new();
    for ((device, room_id), member) in members.iter().filter(|(_, member)| !member.is_in) {
        left.entry(device).or_default().push((member.login, member.seq, *room_id));
    }
    let mut forgotten = Vec::new();
    for (device, mut rooms) in left.into_iter().filter(|(_, rooms)| rooms.len() > LEFT_MAX) {
        rooms.sort_unstable();
        rooms.truncate(rooms.len() - LEFT_MAX);
        forgotten.extend(rooms.into_iter().map(|(_, _, room_id)| (device.clone(), room_id)));
    }
    for key in forgotten {
        members.remove(&key);
    }
}

fn keyed(member: MemberRow) -> ((Device, i64), MemberRow) {
    ((member.device.clone(), member.room_id), member)
}

/// The device of a session; `None` if no device has so long a name.
pub fn device_of(session: &Session) -> Option<Device> {
    let is_one = session.device.len() <= DEVICE_BYTES_MAX;
    is_one.then(|| Device { app: session.app, user_id: session.user, device: session.device.clone() })
}

/// Nanoseconds since 1970 are below 2^63 for some centuries.
fn login_of(session: &Session) -> i64 {
    i64::try_from(session.login).unwrap_or(i64::MAX)
}

/// The number of an event within its shard, as the bridge writes it: `shard-incarnation-number`, hexadecimal.
/// 0 if it is none.
fn seq_of(id: &str) -> i64 {
    let mut parts = id.split('-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(seq), None) => i64::from_str_radix(seq, 16).unwrap_or(0),
        _ => 0,
    }
}

/// By how much the stamp of a session that replaces another is higher, at least, as in routers.
const SESSION_GAP_NS: i64 = 1 << 20;
/// How many left rooms of a device are remembered.
const LEFT_MAX: usize = 256;

#[cfg(test)]
mod tests;
