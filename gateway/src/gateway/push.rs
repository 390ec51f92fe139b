//! What operators and backends send.

use bytes::Bytes;
use shard::{ConnId, Instant, ShardId};
use wire::client::Message;
use wire::node::{Class, Question, SessionId, Submission, Target, ToRouter, is_answered};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, UserId};

use super::Gateway;
use crate::encoded::Frames;
use crate::latency::{RouteClass, Stamp};
use crate::session::Session;

/// What a session, an operator or the backend sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// The app.
    pub app: AppId,
    /// Whom receivers see as its sender.
    pub sender: UserId,
    /// What it is about.
    pub biz_code: BizCode,
    /// How it is delivered.
    pub class: Class,
    /// The caller's name for it; empty for none.
    pub client_msg_id: ClientMsgId,
    /// What the receiver gets.
    pub payload: Bytes,
    /// [`Submission::stored`].
    pub stored: bool,
    /// [`Submission::device`].
    pub device: Option<DeviceClass>,
}

impl Push {
    /// Whether anything will be said of what becomes of it.
    pub fn is_answered(&self, target: Target) -> bool {
        is_answered(self.class, target, &self.client_msg_id)
    }
}

impl Gateway {
    /// Sends a message to a user or a room. Its id; when [`Push::is_answered`], what becomes of it is mailed
    /// to the control thread under that id. `None` when too many messages wait for answers.
    pub fn push(&mut self, now: Instant, target: Target, push: Push) -> Option<MessageId> {
        self.send(now, SessionId::CONTROL, target, push)
    }

    /// Sends a message of a session.
    pub(super) fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        target: Target,
        push: Push,
    ) -> Option<MessageId> {
        let Push { app, sender, biz_code, class, client_msg_id, payload, stored, device } = push;
        let (id, again, concluded) = (self.ids.next(self.clocks.order(now)), false, None);
        let submission = Submission {
            id,
            app,
            sender,
            target,
            biz_code,
            class,
            client_msg_id,
            payload,
            again,
            stored,
            device,
            concluded,
        };
        self.give(now, session, submission).then_some(id)
    }

    /// Asks a router shard; the answer is mailed to the control thread.
    pub fn ask(&mut self, router: ShardId, ask: u64, question: Question) {
        self.tell_router(router, ToRouter::Ask { ask, question });
    }

    /// The message that [`Question::PushAll`] takes: always lossy.
    pub fn message_to_all(&mut self, now: Instant, push: Push) -> Message {
        let Push { app, sender, biz_code, class: _, client_msg_id, payload, .. } = push;
        let id = self.ids.next(self.clocks.order(now));
        Message {
            id,
            app,
            sender,
            biz_code,
            room: None,
            sequence: 0,
            ack_wanted: false,
            client_msg_id,
            payload,
        }
    }

    /// A lossy message for every session of its app.
    pub(super) fn push_all(&mut self, now: Instant, message: &Message) {
        let of_app = |(conn, session): (ConnId, &Session)| {
            (session.is_logged_in() && session.app == message.app)
                .then_some((conn, session.answer_encoding()))
        };
        let receivers: Vec<_> = self.sessions.iter().filter_map(of_app).collect();
        let mut frames = Frames::new(std::slice::from_ref(message), self.config.limits.frame_bytes_max);
        for (conn, encoding) in receivers {
            let frame = frames.get(encoding);
            self.queue_lossy(conn, frame, 1, Some((RouteClass::UserLossy, Stamp::of(now))));
        }
    }
}
