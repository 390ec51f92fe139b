//! Reads rooms' messages for operators: owners read a stream only when a member asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shard::ShardId;
use tokio::sync::oneshot;
use wire::client::Message;
use wire::node::{Entry, Stream};
use wire::{AppId, RoomId};

use super::{Record, Writer};

/// Questions that wait for Redis.
const WAITING_MAX: usize = 64;

/// Asks the directory for streams of rooms.
#[derive(Default)]
pub struct Reader {
    /// Set when the directory has started.
    writer: OnceLock<(Writer, Duration)>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    /// Questions by number.
    questions: BTreeMap<u64, (AppId, RoomId, oneshot::Sender<Vec<Message>>)>,
}

impl Reader {
    /// Call this when the directory has started; an answer may take `patience`.
    pub fn start(&self, writer: Writer, patience: Duration) {
        let _ = self.writer.set((writer, patience)); // it is set once
    }

    /// The messages in the stream of a room, in order; `None` if the directory does not answer in time, or
    /// too many questions wait.
    pub async fn messages(&self, app: AppId, room: RoomId) -> Option<Vec<Message>> {
        let (writer, patience) = self.writer.get()?;
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            if waiting.questions.len() >= WAITING_MAX {
                return None;
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.questions.insert(number, (app, room, answer));
            number
        };
        let _question = Question { reader: self, number };
        writer.push(Record::Read { from: ShardId::CONTROL, app, room });
        tokio::time::timeout(*patience, answered).await.ok()?.ok()
    }

    /// Answers all questions about this stream.
    pub fn answer(&self, stream: Stream) {
        let Stream { app, room, entries } = stream;
        let mut waiting = self.waiting();
        let is_it = |question: &(AppId, RoomId, _)| (question.0, question.1) == (app, room);
        let numbers: Vec<u64> = waiting
            .questions
            .iter()
            .filter(|(_, question)| is_it(question))
            .map(|(number, _)| *number)
            .collect();
        let messages = |entry: Entry| match entry {
            Entry::Message(message) => Some(message),
            Entry::Gap(_) | Entry::NoGap(_) | Entry::Whole(_) | Entry::Lost(_) | Entry::Seen { .. } => None,
        };
        let messages: Vec<Message> = entries.into_iter().filter_map(messages).collect();
        for number in numbers {
            if let Some((.., answer)) = waiting.questions.remove(&number) {
                let _ = answer.send(messages.clone()); // the asker may have gone
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that waits. Its place is free once it is answered or dropped.
struct Question<'a> {
    reader: &'a Reader,
    number: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.reader.waiting().questions.remove(&self.number);
    }
}
