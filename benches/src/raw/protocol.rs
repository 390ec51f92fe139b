//! As much of the client protocol as the floor needs: heartbeats come back as they are, a login gets a canned
//! answer, a message goes to every connection that joined. No token is looked at, no session kept, no message
//! retried.

use std::os::fd::RawFd;

use bytes::Bytes;
use wire::client::{
    Business, ClientFrame, Code, Encoding, Frame, HEADER_BYTES, Message, Outcome, SendAck, ServerFrame,
};
use wire::{AppId, ClientMsgId, MessageId, RoomId, UserId};

const APP: AppId = AppId(1);
const NOBODY: UserId = UserId(0);
const HEARTBEAT_MS: u32 = 30_000;
/// A longer body means that the stream is no longer in step.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a loop does next with what it received.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send all bytes received back, from the buffer they came in.
    Echo,
    /// Send this to the one who asked.
    Own(Bytes),
    /// Send this to everyone in the room.
    Room(Bytes),
    /// Send this to the one who asked, then shut the connection down.
    Last(Bytes),
    /// The stream is broken: shut it down.
    Broken,
}

/// The state of all connections: the unfinished frame of each, and who is in the one room.
#[derive(Debug)]
pub struct Protocol {
    logged_in: Bytes,
    /// By file descriptor; empty but for a connection whose last read ended inside a frame.
    unfinished: Vec<Vec<u8>>,
    members: Vec<RawFd>,
    /// By file descriptor: the place in `members`.
    member_at: Vec<Option<usize>>,
    sequence: u64,
}

impl Protocol {
    /// No connections, an empty room.
    pub fn new() -> Self {
        let logged_in = encode(&ServerFrame::LoggedIn { heartbeat_ms: HEARTBEAT_MS });
        Self { logged_in, unfinished: Vec::new(), members: Vec::new(), member_at: Vec::new(), sequence: 0 }
    }

    /// Takes in what `fd` received and appends what is to be done, in order.
    pub fn receive(&mut self, fd: RawFd, bytes: &[u8], replies: &mut Vec<Reply>) {
        let slot = fd as usize;
        if self.unfinished.len() <= slot {
            self.unfinished.resize_with(slot + 1, Vec::new);
            self.member_at.resize(slot + 1, None);
        }
        if self.unfinished[slot].is_empty() {
            if is_heartbeats(bytes) {
                return replies.push(Reply::Echo);
            }
            let rest = self.frames(fd, bytes, replies);
            self.unfinished[slot].extend_from_slice(rest);
        } else {
            let mut joined = std::mem::take(&mut self.unfinished[slot]);
            joined.extend_from_slice(bytes);
            let rest = self.frames(fd, &joined, replies).to_vec();
            self.unfinished[slot] = rest;
        }
    }

    /// Forgets a connection.
    pub fn closed(&mut self, fd: RawFd) {
        let slot = fd as usize;
        if slot >= self.member_at.len() {
            return;
        }
        self.unfinished[slot] = Vec::new();
        if let Some(at) = self.member_at[slot].take() {
            self.members.swap_remove(at);
            if let Some(moved) = self.members.get(at) {
                self.member_at[*moved as usize] = Some(at);
            }
        }
    }

    /// Everyone in the room.
    pub fn members(&self) -> &[RawFd] {
        &self.members
    }

    /// Handles the whole frames of `input` and gives back what is left over.
    fn frames<'a>(&mut self, fd: RawFd, mut input: &'a [u8], replies: &mut Vec<Reply>) -> &'a [u8] {
        while let Some(bytes) = frame_bytes(input) {
            let (frame, rest) = input.split_at(bytes);
            if self.frame(fd, frame, replies).is_none() {
                replies.push(Reply::Broken);
                return &[];
            }
            input = rest;
        }
        if input.len() >= HEADER_BYTES && body_bytes(input) > BODY_BYTES_MAX {
            replies.push(Reply::Broken);
            return &[];
        }
        input
    }

    /// Handles one frame; `None` when it is not what the floor can answer.
    fn frame(&mut self, fd: RawFd, bytes: &[u8], replies: &mut Vec<Reply>) -> Option<()> {
        let code = Code::from_i32(code(bytes))?;
        match code {
            Code::Heartbeat => replies.push(Reply::Own(Bytes::copy_from_slice(bytes))),
            Code::Login => replies.push(Reply::Own(self.logged_in.clone())),
            Code::Ack => {}
            Code::Logout => replies.push(Reply::Last(encode(&ServerFrame::LoggedOut))),
            Code::Join | Code::Leave | Code::Business => {
                let frame = Frame { encoding: Encoding::Binary, code, body: &bytes[HEADER_BYTES..] };
                match ClientFrame::decode(&frame).ok()? {
                    ClientFrame::Join { room, .. } => self.join(fd, room, replies),
                    ClientFrame::Leave { room } => {
                        replies.push(Reply::Own(encode(&ServerFrame::Left { room })));
                    }
                    ClientFrame::Business(business) => self.broadcast(&business, replies),
                    _ => return None,
                }
            }
            Code::SendAck | Code::Notice => return None,
        }
        Some(())
    }

    fn join(&mut self, fd: RawFd, room: RoomId, replies: &mut Vec<Reply>) {
        let place = &mut self.member_at[fd as usize];
        if place.is_none() {
            *place = Some(self.members.len());
            self.members.push(fd);
        }
        let joined = ServerFrame::Joined { room, sequence: self.sequence, recovery: None };
        replies.push(Reply::Own(encode(&joined)));
    }

    fn broadcast(&mut self, business: &Business<'_>, replies: &mut Vec<Reply>) {
        self.sequence += 1;
        let id = MessageId(self.sequence);
        let client_msg_id = ClientMsgId::new(Bytes::copy_from_slice(business.client_msg_id.as_bytes()));
        let message = Message {
            id,
            app: APP,
            sender: NOBODY,
            biz_code: business.biz_code,
            room: Some(RoomId(business.target)),
            sequence: self.sequence,
            ack_wanted: false,
            client_msg_id: client_msg_id.clone(),
            payload: Bytes::copy_from_slice(&business.payload),
        };
        replies.push(Reply::Room(encode(&ServerFrame::Deliver(std::borrow::Cow::Owned(message)))));
        if !client_msg_id.is_empty() {
            let outcome = Outcome::Sequenced { sequence: self.sequence };
            replies.push(Reply::Own(encode(&ServerFrame::SendAck(SendAck { client_msg_id, id, outcome }))));
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::new()
    }
}

fn encode(frame: &ServerFrame<'_>) -> Bytes {
    let mut out = Vec::new();
    frame.encode(Encoding::Binary, APP, NOBODY, &mut out);
    out.into()
}

/// Whether `input` is one or more whole heartbeats and nothing else.
fn is_heartbeats(mut input: &[u8]) -> bool {
    while let Some(bytes) = frame_bytes(input) {
        if code(input) != Code::Heartbeat as i32 {
            return false;
        }
        input = &input[bytes..];
        if input.is_empty() {
            return true;
        }
    }
    false
}

/// The size of the first frame, when it is all there.
fn frame_bytes(input: &[u8]) -> Option<usize> {
    if input.len() < HEADER_BYTES {
        return None;
    }
    let bytes = HEADER_BYTES.checked_add(body_bytes(input))?;
    (bytes <= input.len()).then_some(bytes)
}

/// The code in a whole header.
fn code(header: &[u8]) -> i32 {
    i32::from_be_bytes([header[2], header[3], header[4], header[5]])
}

/// The body length in a whole header; a negative one counts as endless.
fn body_bytes(header: &[u8]) -> usize {
    usize::try_from(i32::from_be_bytes([header[6], header[7], header[8], header[9]])).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn from_client(frame: &ClientFrame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(Encoding::Binary, APP, NOBODY, &mut out);
        out
    }

    fn replies(protocol: &mut Protocol, fd: RawFd, bytes: &[u8]) -> Vec<Reply> {
        let mut replies = Vec::new();
        protocol.receive(fd, bytes, &mut replies);
        replies
    }

    #[test]
    fn a_frame_split_anywhere_is_answered_once() {
        let login = from_client(&ClientFrame::Login { token: Cow::Borrowed("token") });
        for split in 1..login.len() {
            let mut protocol = Protocol::new();
            assert_eq!(replies(&mut protocol, 5, &login[..split]), []);
            let answer = protocol.logged_in.clone();
            assert_eq!(replies(&mut protocol, 5, &login[split..]), [Reply::Own(answer)]);
        }
    }

    #[test]
    fn only_whole_heartbeats_are_echoed_from_the_buffer() {
        let heartbeat = from_client(&ClientFrame::Heartbeat { echo: b"14 bytes of it" });
        let mut protocol = Protocol::new();
        assert_eq!(replies(&mut protocol, 5, &heartbeat.repeat(3)), [Reply::Echo]);
        let mut broken = heartbeat.repeat(2);
        let last = broken.pop().expect("a frame is not empty");
        assert_eq!(replies(&mut protocol, 5, &broken), [Reply::Own(heartbeat.clone().into())]);
        assert_eq!(replies(&mut protocol, 5, &[last]), [Reply::Own(heartbeat.into())]);
    }

    #[test]
    fn who_left_is_no_member() {
        let mut protocol = Protocol::new();
        let join = from_client(&ClientFrame::Join { room: RoomId(7), want: None });
        for fd in [5, 6, 7] {
            assert_eq!(replies(&mut protocol, fd, &join).len(), 1);
        }
        protocol.closed(5);
        protocol.closed(7);
        assert_eq!(protocol.members(), [6]);
        protocol.closed(6);
        assert!(protocol.members().is_empty());
    }

    #[test]
    fn a_stream_out_of_step_is_shut_down() {
        let mut protocol = Protocol::new();
        assert_eq!(replies(&mut protocol, 5, &[0xff; HEADER_BYTES]), [Reply::Broken]);
    }
}
