//! Rooms' messages, in a Redis stream for each room. OPERATIONS.md draws the layout.
//!
//! An entry's id is made of the room's sequence, so Redis itself refuses late entries of an earlier owner,
//! and repeats.

use redis::{FromRedisValue, Value, cmd};
use wire::client::Message;
use wire::node::{Entry, HISTORY_MESSAGES_MAX, PAYLOAD_BYTES_MAX};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

use super::StreamBounds;
use super::link::{Command, Reply};

/// Entries in a stream beside a room's messages.
const MARKS: u32 = 64;
/// Marks by the names of their fields.
const GAP: &str = "gap";
const NO_GAP: &str = "no_gap";
const WHOLE: &str = "whole";
const LOST: &str = "lost";
const SEEN: &str = "seen";
/// A field of that mark.
const BASE: &str = "base";

/// Makes commands.
pub struct Streams {
    prefix: String,
    bounds: StreamBounds,
}

impl Streams {
    pub fn new(prefix: &str, bounds: StreamBounds) -> Self {
        Self { prefix: prefix.to_owned(), bounds }
    }

    pub fn add(&self, app: AppId, room: RoomId, entry: &Entry) -> Command {
        let key = self.key(app, room);
        let mut command = cmd("XADD");
        command.arg(&key).arg("MAXLEN").arg("~").arg(self.entries_max());
        command.arg(format!("{}-{}", entry.sequence(), entry.rank()));
        match entry {
            Entry::Message(message) => {
                command.arg("id").arg(message.id.0).arg("sender").arg(message.sender.0);
                command.arg("code").arg(message.biz_code.0).arg("ack").arg(u8::from(message.ack_wanted));
                command.arg("name").arg(message.client_msg_id.as_bytes());
                command.arg("payload").arg(&message.payload[..]);
            }
            Entry::Gap(_) => drop(command.arg(GAP).arg(1)),
            Entry::NoGap(_) => drop(command.arg(NO_GAP).arg(1)),
            Entry::Whole(_) => drop(command.arg(WHOLE).arg(1)),
            Entry::Lost(_) => drop(command.arg(LOST).arg(1)),
            Entry::Seen { base, seen, .. } => drop(command.arg(SEEN).arg(seen).arg(BASE).arg(base)),
        }
        Command::new(&key, command)
    }

    pub fn expire(&self, app: AppId, room: RoomId) -> Command {
        let key = self.key(app, room);
        let mut command = cmd("PEXPIRE");
        command.arg(&key).arg(self.bounds.ms);
        Command::new(&key, command)
    }

    /// The newest first.
    pub fn read(&self, app: AppId, room: RoomId) -> Command {
        let key = self.key(app, room);
        let mut command = cmd("XREVRANGE");
        command.arg(&key).arg("+").arg("-").arg("COUNT").arg(self.entries_max());
        Command::new(&key, command)
    }

    fn entries_max(&self) -> u32 {
        self.bounds.messages.min(HISTORY_MESSAGES_MAX) + MARKS
    }

    fn key(&self, app: AppId, room: RoomId) -> String {
        format!("{}:room:{{{}:{}}}", self.prefix, app.0, room.0)
    }
}

/// Whether the stream has a newer entry.
pub fn is_stale(reply: &Reply) -> bool {
    let is_smaller = |detail: &str| detail.contains("equal or smaller");
    reply.as_ref().is_err_and(|error| error.detail().is_some_and(is_smaller))
}

/// The entries that [`Streams::read`] returns, in the room's order, without those of other programs.
pub fn entries(app: AppId, room: RoomId, value: &Value) -> Vec<Entry> {
    let Value::Array(entries) = value else { return Vec::new() };
    let parse = |value: &Value| {
        let Value::Array(parts) = value else { return None };
        let [id, Value::Array(fields)] = parts.as_slice() else { return None };
        entry(app, room, &String::from_redis_value_ref(id).ok()?, fields)
    };
    entries.iter().rev().filter_map(parse).collect()
}

fn entry(app: AppId, room: RoomId, id: &str, fields: &[Value]) -> Option<Entry> {
    let sequence = id.split_once('-')?.0.parse().ok()?;
    let find = |name: &str| {
        let is_it =
            |pair: &&[Value]| matches!(&pair[0], Value::BulkString(bytes) if bytes == name.as_bytes());
        fields.chunks_exact(2).find(is_it).map(|pair| &pair[1])
    };
    let number = |name| i64::from_redis_value_ref(find(name)?).ok();
    let bytes = |name| Vec::<u8>::from_redis_value_ref(find(name)?).ok();
    if find(GAP).is_some() {
        return Some(Entry::Gap(sequence));
    }
    if find(NO_GAP).is_some() {
        return Some(Entry::NoGap(sequence));
    }
    if find(WHOLE).is_some() {
        return Some(Entry::Whole(sequence));
    }
    if find(LOST).is_some() {
        return Some(Entry::Lost(sequence));
    }
    if find(SEEN).is_some() {
        let (base, seen) = (number(BASE)?.try_into().ok()?, number(SEEN)?.try_into().ok()?);
        return Some(Entry::Seen { at: sequence, base, seen });
    }
    Some(Entry::Message(Message {
        id: MessageId(number("id")?.try_into().ok()?),
        app,
        sender: UserId(number("sender")?),
        biz_code: BizCode(number("code")?.try_into().ok()?),
        room: Some(room),
        sequence,
        ack_wanted: number("ack")? != 0,
        client_msg_id: ClientMsgId::parse(bytes("name")?.into())?,
        payload: bytes("payload").filter(|payload| payload.len() <= PAYLOAD_BYTES_MAX)?.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of a stream as Redis answers it.
    fn value(name: &[u8], payload: &[u8]) -> Value {
        let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let mut fields = Vec::new();
        for (field, number) in [("id", "1"), ("sender", "2"), ("code", "3"), ("ack", "1")] {
            fields.extend([text(field.as_bytes()), text(number.as_bytes())]);
        }
        fields.extend([text(b"name"), text(name), text(b"payload"), text(payload), text(b"a half")]);
        Value::Array(vec![text(b"7-0"), Value::Array(fields)])
    }

    /// What no node of ours can have written is passed over, whatever its length.
    #[test]
    fn what_no_message_can_hold_is_passed_over() {
        let (app, room) = (AppId(1), RoomId(7));
        let (longest, payload) = ([b'n'; ClientMsgId::BYTES_MAX], vec![0; PAYLOAD_BYTES_MAX]);
        let strange = [
            value(&[b'n'; ClientMsgId::BYTES_MAX + 1], b"too long"),
            value(b"\xff", b"no text"),
            value(b"n", &vec![0; PAYLOAD_BYTES_MAX + 1]),
            Value::Array(vec![Value::Int(7), Value::Array(vec![Value::Nil])]),
            Value::Array(Vec::new()),
            Value::Nil,
        ];
        let answer = Value::Array([&strange[..], &[value(&longest, &payload)]].concat());
        let read = entries(app, room, &answer);
        let [Entry::Message(message)] = &read[..] else { panic!("{} entries", read.len()) };
        assert_eq!((message.sequence, message.client_msg_id.as_bytes()), (7, &longest[..]));
        assert_eq!(message.payload.len(), PAYLOAD_BYTES_MAX);
    }
}
