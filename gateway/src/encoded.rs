//! Messages as frames: each encoding is made once, when it is first wanted, and shared by all who get it.

use std::borrow::Cow;

use bytes::Bytes;
use wire::client::{Encoding, HEADER_BYTES, Message, Recovery, ServerFrame, Want};

use crate::limits::HELD_BYTES_MAX;
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

/// The frames of `messages` in one piece. Those with longer bodies are left out: a message is refused to its
/// sender before it comes to that, unless another limit was in force there.
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
    sequence: u64,
    gone: u64,
    body_bytes_max: u32,
    frames: [Option<Encoded>; 3],
}

/// The frames of messages in one piece.
#[derive(Clone)]
pub(crate) struct Encoded {
    bytes: Bytes,
    /// Where each begins, and the end.
    ends: std::sync::Arc<[usize]>,
}

impl Answer {
    pub(crate) fn new(messages: Vec<Message>, sequence: u64, gone: u64, body_bytes_max: u32) -> Self {
        Self { messages, sequence, gone, body_bytes_max, frames: [None, None, None] }
    }

    /// What a member is told, and from which message on it gets them.
    pub(crate) fn for_member(&self, want: Want) -> (Recovery, usize) {
        match want {
            Want::Since(since) => {
                // One that has seen more than this owner has said has it from another.
                let is_complete = (self.gone..=self.sequence).contains(&since);
                let recovery = if is_complete { Recovery::Complete } else { Recovery::TooOld };
                (recovery, self.messages.partition_point(|message| message.sequence <= since))
            }
            Want::Last(count) => {
                (Recovery::Complete, self.messages.len().saturating_sub(clipped(count) as usize))
            }
        }
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
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for message in messages {
            bytes.extend_from_slice(&encode(std::slice::from_ref(message), encoding, body_bytes_max));
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends: ends.into() }
    }

    pub(crate) fn slice(&self, from: usize, to: usize) -> Bytes {
        self.bytes.slice(self.ends[from]..self.ends[to])
    }

    /// The end of the lossy messages from `at` on that leave as one: a slow reader loses no more at once than
    /// of a busy room.
    pub(crate) fn end_of_run(&self, messages: &[Message], at: usize) -> usize {
        let mut end = at + 1;
        while end < messages.len()
            && !messages[end].ack_wanted
            && self.ends[end + 1] - self.ends[at] <= HELD_BYTES_MAX
        {
            end += 1;
        }
        end
    }
}
