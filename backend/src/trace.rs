//! The trace of a packet: <https://www.w3.org/TR/trace-context/>. The bridge begins it, log lines and
//! webhooks carry it on.

use std::fmt;

use tracing::{Span, field, info_span};

use crate::random;

/// A trace that goes on here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// 32 hexadecimal digits.
    id: String,
}

impl Trace {
    /// Reads a `traceparent`; `None` if it is none.
    pub fn parse(traceparent: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = traceparent?.split('-').collect();
        let [version, id, parent, flags] = parts[..] else { return None };
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_named = |text: &str| text.bytes().any(|byte| byte != b'0');
        let is_sound = version == "00" && is_hex(id, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        (is_sound && is_named(id) && is_named(parent)).then(|| Self { id: id.to_owned() })
    }

    /// The `traceparent` of a call that is made for it.
    pub fn next(&self) -> String {
        format!("00-{}-{}-01", self.id, random::hex::<8>())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// What log lines say of a packet.
pub fn span(id: &str, trace: Option<&Trace>) -> Span {
    info_span!("packet", id, trace = trace.map(field::display))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_under_its_id() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let given = format!("00-{id}-b7ad6b7169203331-01");
        let trace = Trace::parse(Some(&given)).unwrap();
        assert_eq!(trace.to_string(), id);
        let next = trace.next();
        assert_eq!(Trace::parse(Some(&next)), Some(trace.clone()));
        assert_ne!((next, trace.next()), (given.clone(), trace.next()), "each call is a span of its own");
        for wrong in [
            "".into(),
            given.to_uppercase(),
            format!("01-{id}-b7ad6b7169203331-01"),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-b7ad6b7169203331-01-x"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-b7ad6b7169203331-01\r\nx: y"),
        ] {
            assert_eq!(Trace::parse(Some(&wrong)), None, "{wrong:?}");
        }
        assert_eq!(Trace::parse(None), None);
    }
}
