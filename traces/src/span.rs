//! One step of the work of a trace.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Context;

/// The longest text of an error.
const ERROR_BYTES_MAX: usize = 256;

/// A step that has ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// Which part of the system did it.
    pub source: Source,
    /// What it does; few names, since collectors group by them.
    pub name: Cow<'static, str>,
    /// What it is to the span that caused it.
    pub kind: Kind,
    /// Its trace and its own id.
    pub context: Context,
    /// The id of the span that caused it; `None` if the trace begins with it.
    pub parent: Option<u64>,
    /// When it began and ended, in ns since the UNIX epoch.
    pub start_ns: u64,
    /// See `start_ns`.
    pub end_ns: u64,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A part of the system, the resource of its spans.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Source {
    /// `service.name`.
    pub service: &'static str,
    /// `service.instance.id`: a node's number.
    pub node: Option<u16>,
}

/// What a span is to the span that caused it, with its number in OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A step within a process.
    Internal = 1,
    /// Serves a request of another process.
    Server = 2,
    /// Requests something of another process, and waits for the answer.
    Client = 3,
    /// Puts something into a queue.
    Producer = 4,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A `string`.
    Text(Cow<'static, str>),
    /// An `int64`.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl Span {
    /// A step from `begun` to now.
    pub fn since(begun: Moment, source: Source, kind: Kind, context: Context, parent: Option<u64>) -> Self {
        let (start_ns, end_ns) = (begun.wall_ns(), begun.now_ns());
        let (name, attributes) = (Cow::Borrowed(""), Vec::new());
        Self { source, name, kind, context, parent, start_ns, end_ns, attributes, error: None }
    }

    /// Names it.
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Adds an attribute.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    /// Marks it as failed, and says why.
    pub fn failed(mut self, why: impl Into<String>) -> Self {
        let mut why = why.into();
        why.truncate(why.floor_char_boundary(ERROR_BYTES_MAX));
        self.error = Some(why);
        self
    }
}

/// When a step began. Its end is measured by the monotonic clock, so a step never ends before it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    wall: SystemTime,
    at: Instant,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), at: Instant::now() }
    }

    /// As ns since the UNIX epoch.
    pub fn wall_ns(self) -> u64 {
        nanos(self.wall.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The present, on the same time line.
    pub fn now_ns(self) -> u64 {
        self.wall_ns().saturating_add(nanos(self.at.elapsed()))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
