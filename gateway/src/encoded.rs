//! Messages as frames: each encoding is made once, when it is first wanted, and shared by all who get it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use wire::client::{Encoding, HEADER_BYTES, Message, Recovery, ServerFrame, Want};

use crate::limits::{HELD_BYTES_MAX, PINNED_TIMES_MAX};
use crate::recall::clipped;

/// The frames of some messages, together, one per encoding; each is made when it is first wanted.
pub(crate) struct Frames<'a> {
    messages: &'a [Message],
    body_bytes_max: u32,
    frames: [Option<Bytes>; 3],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(messages: &'a [Message], body_bytes_max: u32) -> Self {
        Self { messages, body_bytes_max, frames: [None, None, None] }
    }

    pub(crate) fn get(&mut self, encoding: Encoding) -> Bytes {
        let at = match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
            Encoding::JsonOld => 2,
        };
        self.frames[at].get_or_insert_with(|| encode(self.messages, encoding, self.body_bytes_max)).clone()
    }
}

/// The frames of `messages` in one piece. Those with longer bodies are left out: their senders were refused
/// before, unless another limit was in force there.
pub(crate) fn encode(messages: &[Message], encoding: Encoding, body_bytes_max: u32) -> Bytes {
    // Header and fixed fields of a delivered message are under 64 bytes; JSON grows as it must.
    let size = |message: &Message| 64 + message.client_msg_id.as_bytes().len() + message.payload.len();
    let mut frames = Vec::with_capacity(messages.iter().map(size).sum());
    for message in messages {
        let start = frames.len();
        let deliver = ServerFrame::Deliver(Cow::Borrowed(message));
        deliver.encode(encoding, message.app, message.sender, &mut frames);
        if frames.len() - start - HEADER_BYTES > body_bytes_max as usize {
            frames.truncate(start);
        }
    }
    frames.into()
}

/// What an owner answered, with the frames that members share.
pub(crate) struct Answer {
    messages: Vec<Message>,
    /// Which of them have an earlier place too, ascending: an owner gave them again.
    repeats: Vec<usize>,
    sequence: u64,
    gone: u64,
    body_bytes_max: u32,
    frames: [Option<Encoded>; 3],
}

/// The frames of messages, in pieces that members share.
#[derive(Clone)]
pub(crate) struct Encoded {
    pieces: std::sync::Arc<[Bytes]>,
    /// Where the frame of each message is.
    places: std::sync::Arc<[Place]>,
}

#[derive(Clone)]
struct Place {
    piece: usize,
    range: std::ops::Range<usize>,
}

impl Answer {
    pub(crate) fn new(messages: Vec<Message>, sequence: u64, gone: u64, body_bytes_max: u32) -> Self {
        let mut known = BTreeSet::new();
        let is_repeat = |(_, message): &(usize, &Message)| !known.insert(message.id);
        let repeats = messages.iter().enumerate().filter(is_repeat).map(|(at, _)| at).collect();
        Self { messages, repeats, sequence, gone, body_bytes_max, frames: [None, None, None] }
    }

    /// What a member's answer says, and from which message on it gets them. A member that wants the last few
    /// gets each once, at its first place: see [`Answer::repeat_from`].
    pub(crate) fn for_member(&self, want: Want) -> (Recovery, usize) {
        match want {
            Want::Since(since) => {
                // A member that has seen more than this owner has sent has it from another one.
                let is_complete = (self.gone..=self.sequence).contains(&since);
                let recovery = if is_complete { Recovery::Complete } else { Recovery::TooOld };
                (recovery, self.messages.partition_point(|message| message.sequence <= since))
            }
            Want::Last(count) => {
                let all = self.messages.len();
                let firsts = (0..all).rev().filter(|at| self.repeats.binary_search(at).is_err());
                (Recovery::Complete, firsts.take(clipped(count) as usize).last().unwrap_or(all))
            }
        }
    }

    /// The first message from `at` on that has an earlier place too.
    pub(crate) fn repeat_from(&self, at: usize) -> Option<usize> {
        self.repeats.get(self.repeats.partition_point(|repeat| *repeat < at)).copied()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(crate) fn frames(&mut self, encoding: Encoding) -> Encoded {
        let at = match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
            Encoding::JsonOld => 2,
        };
        let (messages, most) = (&self.messages, self.body_bytes_max);
        self.frames[at].get_or_insert_with(|| Encoded::new(messages, encoding, most)).clone()
    }
}

impl Encoded {
    fn new(messages: &[Message], encoding: Encoding, body_bytes_max: u32) -> Self {
        let (mut pieces, mut places, mut piece) = (Vec::<Bytes>::new(), Vec::new(), Vec::new());
        for message in messages {
            let frame = encode(std::slice::from_ref(message), encoding, body_bytes_max);
            if piece.len() + frame.len() > HELD_BYTES_MAX && !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece).into_boxed_slice().into());
            }
            let start = piece.len();
            piece.extend_from_slice(&frame);
            places.push(Place { piece: pieces.len(), range: start..piece.len() });
        }
        pieces.push(piece.into_boxed_slice().into());
        Self { pieces: pieces.into(), places: places.into() }
    }

    /// The frames of some messages of one run. A small part of a piece is copied, so that an outbox that
    /// keeps it holds at most four times what is counted.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Bytes {
        let (first, last) = (&self.places[from], &self.places[to - 1]);
        let (piece, range) = (&self.pieces[first.piece], first.range.start..last.range.end);
        if range.len() * PINNED_TIMES_MAX < piece.len() {
            return Bytes::copy_from_slice(&piece[range]);
        }
        piece.slice(range)
    }

    /// The bytes of the frames from the one at `from` on.
    pub(crate) fn bytes_from(&self, from: usize) -> usize {
        self.places[from..].iter().map(|place| place.range.len()).sum()
    }

    /// The end of the lossy messages from `at` on that leave together: a slow reader loses no more at once
    /// than in a busy room.
    pub(crate) fn end_of_run(&self, messages: &[Message], at: usize) -> usize {
        let mut end = at + 1;
        while end < messages.len()
            && !messages[end].ack_wanted
            && self.places[end].piece == self.places[at].piece
        {
            end += 1;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use wire::client::{Encoding, Message};
    use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

    use super::*;

    fn message(sequence: u64, payload: usize) -> Message {
        Message {
            id: MessageId(sequence),
            app: AppId(1),
            sender: UserId(1),
            biz_code: BizCode(5555),
            room: Some(RoomId(7)),
            sequence,
            ack_wanted: false,
            client_msg_id: ClientMsgId::new(Bytes::new()),
            payload: vec![b'x'; payload].into(),
        }
    }

    /// A member that waits with a small message must not keep the large ones beside it.
    #[test]
    fn no_slice_keeps_much_more_than_it_is() {
        let messages: Vec<Message> =
            (1..=200).map(|sequence| message(sequence, if sequence % 3 == 0 { 60_000 } else { 1 })).collect();
        let mut answer = Answer::new(messages, 200, 0, 65_536);
        let encoded = answer.frames(Encoding::Binary);
        let (mut at, mut all) = (0, Vec::new());
        while at < 200 {
            let end = encoded.end_of_run(answer.messages(), at);
            let frames = encoded.slice(at, end);
            let piece = &encoded.pieces[encoded.places[at].piece];
            let is_shared = piece.as_ptr_range().contains(&frames.as_ptr());
            assert!(!is_shared || piece.len() <= 4 * frames.len(), "{} of {}", frames.len(), piece.len());
            assert!(frames.len() <= 2 * HELD_BYTES_MAX || end == at + 1);
            all.extend_from_slice(&frames);
            at = end;
        }
        assert_eq!(all, encode(answer.messages(), Encoding::Binary, 65_536));
    }
}
