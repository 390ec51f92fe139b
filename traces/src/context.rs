//! A place in a trace, and which traces are sampled.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of a trace, as the header `traceparent` carries it: <https://www.w3.org/TR/trace-context/>.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// The trace, not 0.
    pub trace: u128,
    /// The span, not 0.
    pub span: u64,
    /// Its spans are exported.
    pub is_sampled: bool,
}

impl Context {
    /// Begins a trace.
    pub fn begin(sampling: Sampling) -> Self {
        let trace = u128::from_ne_bytes(random()) | 1;
        Self { trace, span: u64::from_ne_bytes(random()) | 1, is_sampled: sampling.takes(trace) }
    }

    /// Reads a `traceparent` of version 00; `None` if it is none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let parts: Vec<&str> = traceparent.split('-').collect();
        let [version, trace, span, flags] = parts[..] else { return None };
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if version != "00" || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// A span that this one causes.
    pub fn child(&self) -> Self {
        Self { span: u64::from_ne_bytes(random()) | 1, ..*self }
    }

    /// The trace as text: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// The `traceparent`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

impl Serialize for Context {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("want a traceparent"))
    }
}

/// Which traces are sampled. Everybody who asks with the same share takes the same traces, and those of a
/// smaller share are among those of a larger one
/// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// Traces whose last 56 bits are below it are not taken.
    threshold: u64,
}

impl Sampling {
    /// Samples `share` of a million traces.
    pub fn per_million(share: u32) -> Self {
        let missing = u64::from(1_000_000 - share.min(1_000_000));
        Self { threshold: ((u128::from(missing) << 56) / 1_000_000) as u64 }
    }

    /// Whether a trace is sampled.
    pub fn takes(self, trace: u128) -> bool {
        (trace as u64 & ((1 << 56) - 1)) >= self.threshold
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::per_million(1_000_000)
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let given = format!("00-{id}-b7ad6b7169203331-01");
        let context = Context::parse(&given).unwrap();
        assert_eq!((context.to_string(), context.trace_id()), (given.clone(), id.to_owned()));
        assert_eq!(serde_json::from_str::<Context>(&format!("\"{given}\"")).unwrap(), context);
        assert_eq!(serde_json::to_string(&context).unwrap(), format!("\"{given}\""));
        let child = context.child();
        assert_eq!((child.trace, child.is_sampled), (context.trace, true));
        assert!(child.span != context.span && child != context.child(), "each is a span of its own");
        for (flags, is_sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let context = Context::parse(&format!("00-{id}-b7ad6b7169203331-{flags}")).unwrap();
            assert_eq!(context.is_sampled, is_sampled, "{flags}");
        }
        for wrong in [
            "".into(),
            given.to_uppercase(),
            format!("01-{id}-b7ad6b7169203331-01"),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-b7ad6b7169203331-01-x"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-b7ad6b7169203331-01\r\nx: y"),
            format!("00-+{}-b7ad6b7169203331-01", &id[1..]),
        ] {
            assert_eq!(Context::parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_share_of_traces_is_sampled() {
        let traces: Vec<u128> = (0..20_000).map(|_| Context::begin(Sampling::default()).trace).collect();
        let taken = |share| traces.iter().filter(|trace| Sampling::per_million(share).takes(**trace)).count();
        assert_eq!((taken(0), taken(1_000_000)), (0, traces.len()));
        assert!((1_700..2_300).contains(&taken(100_000)), "{}", taken(100_000));
        let (few, many) = (Sampling::per_million(10_000), Sampling::per_million(100_000));
        assert!(traces.iter().all(|trace| many.takes(*trace) || !few.takes(*trace)));
        assert!(Context::begin(Sampling::default()).is_sampled);
        assert!(!Context::begin(Sampling::per_million(0)).is_sampled);
    }
}
