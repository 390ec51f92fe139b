//! Spans as the JSON of an `ExportTraceServiceRequest`:
//! <https://github.com/open-telemetry/opentelemetry-proto>
//! (`opentelemetry/proto/trace/v1/trace.proto`), with the rules of
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: ids in hexadecimal, 64-bit numbers as
//! decimal strings, enums as numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::span::{Source, Span, Value};

/// The code of a status that is an error.
const STATUS_ERROR: u32 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanBody<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanBody<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u32,
    message: &'a str,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    /// An `int64`: in JSON a string.
    IntValue(String),
}

/// The body that exports these spans.
pub fn body(spans: &[Span]) -> Vec<u8> {
    let mut sources = BTreeMap::<Source, Vec<SpanBody<'_>>>::new();
    for span in spans {
        sources.entry(span.source).or_default().push(body_of(span));
    }
    let nodes: Vec<String> =
        sources.keys().map(|source| source.node.map_or_else(String::new, |node| node.to_string())).collect();
    let resource_spans = sources.into_iter().zip(&nodes).map(|((source, spans), node)| {
        let scope = Scope { name: "sailfish", version: env!("CARGO_PKG_VERSION") };
        let mut attributes = vec![
            text("service.name", source.service),
            text("service.namespace", "sailfish"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        attributes.extend((!node.is_empty()).then(|| text("service.instance.id", node)));
        ResourceSpans { resource: Resource { attributes }, scope_spans: [ScopeSpans { scope, spans }] }
    });
    let request = Request { resource_spans: resource_spans.collect() };
    serde_json::to_vec(&request).expect("strings and numbers are JSON")
}

fn body_of(span: &Span) -> SpanBody<'_> {
    let attributes = span.attributes.iter().map(|(key, value)| match value {
        Value::Text(value) => text(key, value),
        Value::Number(number) => Attribute { key, value: AnyValue::IntValue(number.to_string()) },
    });
    SpanBody {
        trace_id: span.context.trace_id(),
        span_id: format!("{:016x}", span.context.span),
        parent_span_id: span.parent.map(|parent| format!("{parent:016x}")),
        name: &span.name,
        kind: span.kind as u32,
        start_time_unix_nano: span.start_ns.to_string(),
        end_time_unix_nano: span.end_ns.max(span.start_ns).to_string(),
        attributes: attributes.collect(),
        status: span.error.as_deref().map(|message| Status { code: STATUS_ERROR, message }),
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Attribute<'a> {
    Attribute { key, value: AnyValue::StringValue(value) }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    partial_success: Option<PartialSuccess>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// An `int64`: a string, or from lenient servers a number.
    rejected_spans: Number,
    error_message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(u64),
}

impl Default for Number {
    fn default() -> Self {
        Self::Plain(0)
    }
}

/// How many of the spans that were sent an answer of status 200 says were refused, and why. An answer in
/// another format says none.
pub fn rejected(answer: &[u8], sent: u64) -> (u64, String) {
    let response = serde_json::from_slice::<Response>(answer).unwrap_or_default();
    let PartialSuccess { rejected_spans, error_message } = response.partial_success.unwrap_or_default();
    let count = match rejected_spans {
        Number::Plain(count) => count,
        Number::Text(text) => text.parse().unwrap_or(0),
    };
    (count.min(sent), error_message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{Context, Kind, Sampling};

    /// The names of the fields, letter by letter: collectors ignore names that they do not know.
    #[test]
    fn the_body_is_that_of_the_specification() {
        let context = Context::parse("00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01").unwrap();
        let gateway = Source { service: "sailfish-gateway", node: Some(33) };
        let span = Span {
            source: gateway,
            name: "request \"5560\"".into(),
            kind: Kind::Server,
            context,
            parent: None,
            start_ns: 1_544_712_660_000_000_000,
            end_ns: u64::MAX,
            attributes: vec![("sailfish.user", i64::MIN.into()), ("sailfish.event_id", "21-1-1".into())],
            error: None,
        };
        let child = Span {
            source: Source { service: "sailfish-bridge", node: None },
            parent: Some(context.span),
            context: Context { span: 1, ..context },
            start_ns: 5,
            end_ns: 4,
            ..span.clone()
        };
        let body: Json = serde_json::from_slice(&body(&[span, child.failed("no answer")])).unwrap();
        let scope = json!({ "name": "sailfish", "version": env!("CARGO_PKG_VERSION") });
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let of = |service: &str| {
            let version = text("service.version", env!("CARGO_PKG_VERSION"));
            vec![text("service.name", service), text("service.namespace", "sailfish"), version]
        };
        let gateway: Vec<Json> =
            of("sailfish-gateway").into_iter().chain([text("service.instance.id", "33")]).collect();
        let attributes = json!([
            { "key": "sailfish.user", "value": { "intValue": "-9223372036854775808" } },
            text("sailfish.event_id", "21-1-1"),
        ]);
        let wanted = json!({ "resourceSpans": [
            {
                "resource": { "attributes": of("sailfish-bridge") },
                "scopeSpans": [{ "scope": scope, "spans": [{
                    "traceId": "5b8efff798038103d269b633813fc60c",
                    "spanId": "0000000000000001",
                    "parentSpanId": "eee19b7ec3c1b174",
                    "name": "request \"5560\"",
                    "kind": 2,
                    "startTimeUnixNano": "5",
                    "endTimeUnixNano": "5",
                    "attributes": attributes,
                    "status": { "code": 2, "message": "no answer" },
                }] }],
            },
            {
                "resource": { "attributes": gateway },
                "scopeSpans": [{ "scope": scope, "spans": [{
                    "traceId": "5b8efff798038103d269b633813fc60c",
                    "spanId": "eee19b7ec3c1b174",
                    "name": "request \"5560\"",
                    "kind": 2,
                    "startTimeUnixNano": "1544712660000000000",
                    "endTimeUnixNano": "18446744073709551615",
                    "attributes": attributes,
                }] }],
            },
        ] });
        assert_eq!(body, wanted);
        assert!(Context::begin(Sampling::default()).trace != 0);
    }

    #[test]
    fn an_answer_says_how_many_spans_it_refused() {
        assert_eq!(rejected(b"{}", 9), (0, String::new()));
        assert_eq!(rejected(b"", 9), (0, String::new()));
        assert_eq!(rejected(b"\x0a\x00", 9), (0, String::new()), "an answer in Protobuf");
        let partial = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#;
        assert_eq!(rejected(partial, 9), (3, "too old".into()));
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":2}}"#, 9), (2, String::new()));
        let more = br#"{"partialSuccess":{"rejectedSpans":99999999999}}"#;
        assert_eq!(rejected(more, 9).0, 9, "no more than were sent");
    }
}
