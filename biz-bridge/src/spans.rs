//! The spans of events that carry a packet: its way from the gateway to the backend's decision, and each
//! batch that it was in.

use traces::{Context, Kind, Moment, Sampling, Source, Span, Traces};
use wire::node::ToBridge;
use wire::{EPOCH_UNIX_MS, RoomId};

use crate::Item;
use crate::config::{Config, Mode};
use crate::event::{Entry, EventKey, Packet, Traced};
use crate::queue::{Answer, Verdict};

const BRIDGE: &str = "sailfish-bridge";

/// Records the spans of one lane.
pub struct Spans {
    traces: Traces,
    sampling: Sampling,
    /// The name of a batch's span, and its kind.
    batch: (&'static str, Kind),
}

impl Spans {
    pub fn new(config: &Config, traces: Traces) -> Self {
        let batch = match config.mode {
            Mode::Http { .. } => ("POST /bridge/events", Kind::Client),
            Mode::Redis { .. } => ("XADD events", Kind::Producer),
        };
        Self { traces, sampling: config.trace.sampling(), batch }
    }

    /// An event that has come in.
    pub fn entry(&self, item: &Item) -> Entry {
        let mut entry = Entry::new(item, self.sampling);
        let context = entry.key.context(self.sampling);
        if self.traces.wants(&context) {
            entry.trace = packet(&item.event).map(|packet| {
                let taken = Moment::now();
                Box::new(Traced { context, packet, taken })
            });
        }
        entry
    }

    /// Notes that a batch was sent, with its result.
    pub fn sent(&self, entries: &[Entry], begun: Moment, verdict: &Verdict) {
        let source = Source { service: BRIDGE, node: None };
        for (at, entry) in entries.iter().enumerate() {
            let Some(Traced { context, .. }) = entry.trace.as_deref() else { continue };
            let (name, kind) = self.batch;
            let span = Span::since(begun, source, kind, context.child(), Some(context.span)).named(name);
            let span = span
                .with("sailfish.try", i64::from(entry.tries) + 1)
                .with("sailfish.batch_events", i64::try_from(entries.len()).unwrap_or(i64::MAX));
            self.traces.record(match verdict {
                Verdict::Answered(answers) => span.with("sailfish.answer", name_of(answers.get(at))),
                Verdict::Rejected(why) | Verdict::Failed(why) => span.failed(why.as_str()),
            });
        }
    }

    /// Notes that an event is done: taken, or refused and why.
    pub fn done(&self, entry: &Entry, refused: Option<&str>) {
        let Some(Traced { context, packet, taken }) = entry.trace.as_deref() else { return };
        let EventKey { shard, .. } = entry.key;
        let service = match packet.is_undelivered {
            true => "sailfish-router",
            false => "sailfish-gateway",
        };
        let source = Source { service, node: u16::try_from(shard >> 16).ok() };
        let (app, user) = entry.user;
        let mut span = way(*context, source, *taken, packet)
            .named(format!("{} {}", entry.kind.name(), packet.biz_code.0))
            .with("sailfish.event_id", entry.key.id())
            .with("sailfish.app", i64::from(app.0))
            .with("sailfish.user", user.0)
            .with("sailfish.biz_code", i64::from(packet.biz_code.0))
            .with("sailfish.tries", i64::from(entry.tries) + 1);
        if let Some(RoomId(room)) = packet.room {
            span = span.with("sailfish.room", room);
        }
        self.traces.record(match refused {
            Some(why) => span.failed(why),
            None => span,
        });
    }
}

/// The first span of a packet. Clocks of machines differ, so it begins no later than the bridge got it.
fn way(context: Context, source: Source, taken: Moment, packet: &Packet) -> Span {
    let span = Span::since(taken, source, Kind::Server, context, None);
    let received_ns = packet.received_ms.saturating_mul(1_000_000);
    let start_ns = if received_ns == 0 { span.start_ns } else { received_ns.min(span.start_ns) };
    Span { start_ns, ..span }
}

/// The part of a packet that spans show; `None` if the event is none.
fn packet(event: &ToBridge) -> Option<Packet> {
    match event {
        ToBridge::Request { biz_code, room, received_ms, .. } => Some(Packet {
            is_undelivered: false,
            biz_code: *biz_code,
            room: *room,
            received_ms: *received_ms,
        }),
        // A message's id has the time when its sender's gateway got it.
        ToBridge::Undelivered { message, .. } => Some(Packet {
            is_undelivered: true,
            biz_code: message.biz_code,
            room: message.room,
            received_ms: EPOCH_UNIX_MS + (message.id.0 >> 23),
        }),
        ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => None,
    }
}

fn name_of(answer: Option<&Answer>) -> &'static str {
    match answer {
        Some(Answer::Ok) => "ok",
        Some(Answer::Refused(_)) => "refused",
        Some(Answer::Again) | None => "again",
    }
}
