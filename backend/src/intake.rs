//! Takes bridge events, by HTTP or from Redis.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use logs::warn;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use traces::{Context, Kind, Span};
use tracing::Instrument;

use crate::app::App;
use crate::error::Error;
use crate::event::{Event, EventKind, Outcome, Request, Undelivered};
use crate::gift::{self, Answer, Contents, Decided, GiftRequest, Identity, Reason};
use crate::hooks::before_send;
use crate::trace;
use crate::{inbox, membership};

/// Takes events. Returns the outcome of each.
pub async fn take(app: &Arc<App>, events: impl ExactSizeIterator<Item = &str>) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Done; events.len()];
    let mut requests = Vec::new();
    let (mut presence, mut presence_at) = (Vec::new(), Vec::new());
    let (mut undelivered, mut undelivered_at) = (Vec::new(), Vec::new());
    for (index, event) in events.enumerate() {
        match serde_json::from_str::<Event>(event) {
            Ok(Event { kind: EventKind::Request(request), id }) => requests.push((index, id, request)),
            Ok(Event { kind: EventKind::Undelivered(message), .. }) => {
                undelivered.push(message);
                undelivered_at.push(index);
            }
            Ok(event) => {
                presence.push(event);
                presence_at.push(index);
            }
            Err(error) => outcomes[index] = Outcome::Refused(format!("bad_event: {error}")),
        }
    }
    // The sessions of this batch are known by the time that undelivered messages are judged.
    let sessions_first = async {
        let present = take_presence(app, &presence).await;
        let kept = match present {
            Outcome::Again => vec![Outcome::Again; undelivered.len()],
            _ => keep(app, &undelivered).await,
        };
        (present, kept)
    };
    let (answers, (present, kept)) = tokio::join!(take_requests(app, requests), sessions_first);
    presence_at.into_iter().for_each(|index| outcomes[index] = present.clone());
    undelivered_at.into_iter().zip(kept).for_each(|(index, outcome)| outcomes[index] = outcome);
    answers.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
    outcomes
}

async fn take_presence(app: &App, events: &[Event]) -> Outcome {
    let take = async {
        membership::take(&app.store, events).await?;
        let came = events.iter().filter_map(|event| match &event.kind {
            EventKind::Online(session) => membership::device_of(session),
            _ => None,
        });
        inbox::came(&app.inbox, &came.collect()).await
    };
    match events.is_empty() {
        true => Outcome::Done,
        false => outcome_of(take.await, "presence"),
    }
}

async fn keep(app: &App, messages: &[Undelivered]) -> Vec<Outcome> {
    match inbox::keep(&app.inbox, messages).await {
        Ok(outcomes) => outcomes,
        Err(error) => vec![outcome_of(Err(error), "inbox"); messages.len()],
    }
}

/// A request with its place in the batch and the id of its event.
type Indexed = (usize, String, Request);

/// Takes all at once: a request waits for its commit, which takes many together. One that takes too long must
/// be sent again, and the rest of its batch need not.
async fn take_requests(app: &Arc<App>, requests: Vec<Indexed>) -> Vec<(usize, Outcome)> {
    let mut outcomes: BTreeMap<_, _> = requests.iter().map(|(index, ..)| (*index, Outcome::Again)).collect();
    let mut tasks = JoinSet::new();
    // Messages of one sender stay in their order.
    let mut asked: BTreeMap<(i32, i64), Vec<Indexed>> = BTreeMap::new();
    for (index, id, request) in requests {
        if is_asked_about(app, &request) {
            asked.entry((request.app, request.user)).or_default().push((index, id, request));
            continue;
        }
        let (app, trace) = (app.clone(), trace::parse(request.traceparent.as_deref()));
        let log = trace::span(&id, trace.as_ref());
        let taken = async move {
            let (user, biz_code) = (request.user, request.biz_code);
            let work = tokio::time::timeout(REQUEST_TIME, take_request(&app, request));
            let work = async { work.await.unwrap_or(Outcome::Again) };
            vec![(index, traced(&app, (&id, user, biz_code), trace, work).await)]
        };
        tasks.spawn(taken.instrument(log));
    }
    for (_, messages) in asked {
        tasks.spawn(take_asked(app.clone(), messages));
    }
    while let Some(taken) = tasks.join_next().await {
        // A task that panicked has no outcome.
        outcomes.extend(taken.unwrap_or_default());
    }
    outcomes.into_iter().collect()
}

/// Takes a request as a step of its packet's trace.
async fn traced(
    app: &App,
    (id, user, biz_code): (&str, i64, i32),
    trace: Option<Context>,
    work: impl Future<Output = Outcome>,
) -> Outcome {
    let traces = &app.store.traces;
    let Some(given) = trace.filter(|given| traces.wants(given)) else { return work.await };
    let say = |span: Span, outcome: &Outcome| {
        let (name, why) = match outcome {
            Outcome::Done => ("done", None),
            Outcome::Refused(why) => ("refused", Some(why)),
            Outcome::Again => ("again", None),
            Outcome::Waiting => ("waiting", None),
        };
        let span = span
            .named(format!("take request {biz_code}"))
            .with("sailfish.event_id", id.to_owned())
            .with("sailfish.user", user)
            .with("sailfish.outcome", name);
        match why {
            Some(why) => span.failed(why.as_str()),
            None => span,
        }
    };
    trace::step(traces, Kind::Server, (given.child(), Some(given.span)), work, say).await
}

fn is_asked_about(app: &App, request: &Request) -> bool {
    let before_send = app.hooks.before_send.as_ref();
    request.app == app.store.config.app && before_send.is_some_and(|hook| hook.covers(request.biz_code))
}

/// Messages of one sender that need a service's decision. Those behind an undecided one wait for it.
async fn take_asked(app: Arc<App>, messages: Vec<Indexed>) -> Vec<(usize, Outcome)> {
    let Some(hook) = &app.hooks.before_send else { return Vec::new() };
    let mut outcomes: Vec<_> = messages.iter().map(|(index, ..)| (*index, Outcome::Waiting)).collect();
    let deadline = Instant::now() + REQUEST_TIME;
    for (place, (_, id, request)) in messages.iter().enumerate() {
        let (whose, given) = ((id.as_str(), request.user, request.biz_code), request.traceparent.as_deref());
        let work = before_send::take(hook, id, request);
        outcomes[place].1 = traced(&app, whose, trace::parse(given), work).await;
        let is_open = matches!(outcomes[place].1, Outcome::Again | Outcome::Waiting);
        if is_open || Instant::now() > deadline {
            break;
        }
    }
    outcomes
}

/// A client's gift, in the spelling of packets or of the HTTP API. Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GiftPayload {
    #[serde(alias = "gift_id")]
    gift_id: i64,
    #[serde(alias = "receiver_id")]
    receiver_id: i64,
    #[serde(default = "one")]
    count: i64,
    price: Option<i64>,
    /// Must be the packet's target, if it is there.
    #[serde(alias = "room_id")]
    room_id: Option<i64>,
}

fn one() -> i64 {
    1
}

async fn take_request(app: &App, request: Request) -> Outcome {
    match request.biz_code {
        _ if request.app != app.store.config.app => Outcome::Refused("unknown_app".into()),
        gift::SEND | gift::PK => take_gift(app, request).await,
        _ => Outcome::Refused("no_route".into()),
    }
}

/// Done means decided: paid, or refused and the sender notified.
async fn take_gift(app: &App, request: Request) -> Outcome {
    let Request { user, room, biz_code, client_msg_id, data, .. } = request;
    let payload = data.bytes().unwrap_or_default();
    let payload: GiftPayload = match serde_json::from_slice(&payload) {
        Ok(payload) => payload,
        Err(error) => return refuse_bad(app, user, client_msg_id, error),
    };
    // The gateway has checked that the session is in the packet's room, but not the room in the payload.
    let Some(room_id) = room.filter(|room| payload.room_id.is_none_or(|named| named == *room)) else {
        return refuse_bad(app, user, client_msg_id, "roomId: want the room that the packet is for");
    };
    let GiftPayload { gift_id, receiver_id, count, price, .. } = payload;
    let code = Contents::code_of_request(biz_code);
    let contents = Contents { gift_id, room_id, receiver_id, count, code };
    let identity = Identity { sender_id: user, key: client_msg_id };
    let request = GiftRequest { identity, contents, price, is_in_room: true, trace: trace::current() };
    match app.gifts.submit(&request, gift::Limit::Told).await {
        // The sender got so many messages that its send-ack has to do.
        Ok(Decided { answer: Answer::Refused(Reason::RateLimited), told: None }) => {
            Outcome::Refused("rate_limited".into())
        }
        Ok(Decided { told: None, .. }) => Outcome::Done,
        Ok(Decided { told: Some(told), .. }) => match tokio::time::timeout(TELL_TIME, told).await {
            Ok(Ok(())) => Outcome::Done,
            _ => Outcome::Again, // and the sender is told then
        },
        Err(error) if error.is_transient() => Outcome::Again,
        Err(error) => {
            let Identity { sender_id, key } = request.identity;
            refuse_bad(app, sender_id, key, error)
        }
    }
}

/// Refuses a packet that is no gift.
fn refuse_bad(app: &App, sender_id: i64, key: String, error: impl Display) -> Outcome {
    app.gifts.refuse_bad(Identity { sender_id, key });
    Outcome::Refused(format!("bad_request: {error}"))
}

fn outcome_of(result: Result<(), Error>, what: &str) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) if error.is_transient() => {
            warn!(%error, what, "cannot store events now; the bridge will send them again");
            Outcome::Again
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// How long a request may take: less than a bridge waits for its batch (5 s).
const REQUEST_TIME: Duration = Duration::from_secs(4);
/// How long a request waits until its sender is notified of a refusal.
const TELL_TIME: Duration = Duration::from_secs(2);
