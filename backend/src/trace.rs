//! The trace of the packet or request at work. The bridge begins that of a packet; log lines, webhooks and
//! spans carry it on.

use traces::{Context, Kind, Moment, Sampling, Source, Span, Traces};
use tracing::{Span as LogSpan, field, info_span};

/// The name of the service in each span.
pub const SOURCE: Source = Source { service: "sailfish-backend", node: None };

tokio::task_local! {
    static CURRENT: Context;
}

/// Reads a `traceparent`; `None` if it is none.
pub fn parse(traceparent: Option<&str>) -> Option<Context> {
    Context::parse(traceparent?)
}

/// The span at work, if its trace is exported.
pub fn current() -> Option<Context> {
    CURRENT.try_with(|context| *context).ok()
}

/// The trace of a request. A caller may keep its trace from being exported, but not cause an export: its flag
/// counts only if we would sample that trace too.
pub fn of_request(traceparent: Option<&str>, sampling: Sampling) -> (Context, Option<u64>) {
    match parse(traceparent) {
        Some(given) => {
            let is_sampled = given.is_sampled && sampling.takes(given.trace);
            (Context { is_sampled, ..given.child() }, Some(given.span))
        }
        None => (Context::begin(sampling), None),
    }
}

/// Does work as the span `context`; `say` gets the result. Without an export, it only does the work.
pub async fn step<T>(
    traces: &Traces,
    kind: Kind,
    (context, parent): (Context, Option<u64>),
    work: impl Future<Output = T>,
    say: impl FnOnce(Span, &T) -> Span,
) -> T {
    if !traces.wants(&context) {
        return work.await;
    }
    let begun = Moment::now();
    let done = CURRENT.scope(context, work).await;
    traces.record(say(Span::since(begun, SOURCE, kind, context, parent), &done));
    done
}

/// The fields of a packet's log lines.
pub fn span(id: &str, trace: Option<&Context>) -> LogSpan {
    info_span!("packet", id, trace = trace.map(|trace| field::display(trace.trace_id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_cannot_have_its_trace_exported() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let given = |flags| format!("00-{trace}-b7ad6b7169203331-{flags}");
        let (all, none) = (Sampling::default(), Sampling::per_million(0));
        for (flags, sampling, is_sampled) in
            [("01", all, true), ("00", all, false), ("01", none, false), ("00", none, false)]
        {
            let (context, parent) = of_request(Some(&given(flags)), sampling);
            assert_eq!((context.trace_id().as_str(), context.is_sampled), (trace, is_sampled));
            assert_eq!(parent, Some(0xb7ad_6b71_6920_3331));
        }
        for none in [None, Some("?")] {
            let (context, parent) = of_request(none, all);
            assert!(context.is_sampled && context.trace != 0 && parent.is_none());
        }
    }
}
