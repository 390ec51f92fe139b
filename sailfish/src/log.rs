//! The form of log lines: text or JSON, with each value printable and bounded, whatever its source.

use std::fmt::{self, Write};
use std::io;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Config;

/// The longest value that is written completely.
const VALUE_BYTES_MAX: usize = 1_024;

/// Sends log lines to stderr, as the configuration wants them.
pub fn init(config: &Config) {
    // A failed write of a log line is ignored: a message about it on stderr, which is the log, would panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter(&config.log.filter))
        .with_writer(io::stderr);
    match config.log.format.as_str() {
        "json" => builder.event_format(JsonLines).init(),
        _ => builder.fmt_fields(TextFields).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
    }
}

/// The operator's filter. The database library has no limit for its lines, so they are written only where
/// the filter names it.
fn filter(directives: &str) -> EnvFilter {
    let wanted: EnvFilter = directives.parse().expect("the config was validated");
    match directives.contains("sqlx") {
        true => wanted,
        false => wanted.add_directive("sqlx=off".parse().expect("a constant that a test parses")),
    }
}

/// `message name=value ..`.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Visit for TextVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.is_empty { "" } else { " " };
        self.is_empty = false;
        let value = printable(value);
        let written = match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name => write!(self.writer, "{space}{name}={value}"),
        };
        self.result = self.result.and(written);
    }
}

/// One JSON object a line: `timestamp`, `level`, `fields` and `target`.
struct JsonLines;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for JsonLines
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = JsonVisitor::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = serde_json::json!({
            "timestamp": timestamp,
            "level": metadata.level().as_str(),
            "fields": fields.0,
            "target": metadata.target(),
        });
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct JsonVisitor(Map<String, Value>);

impl JsonVisitor {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for JsonVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, printable(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, printable(&format_args!("{value}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

/// The value's text as [`crate::printable::printable`]; what is longer than [`VALUE_BYTES_MAX`] is cut off
/// and counted.
fn printable(value: &dyn fmt::Debug) -> String {
    let mut cut = Cut::default();
    let _ = write!(cut, "{value:?}"); // it takes everything
    let mut text = crate::printable::printable(&cut.text).into_owned();
    if cut.bytes_left > 0 {
        let _ = write!(text, "... and {} bytes more", cut.bytes_left);
    }
    text
}

/// Takes a text's beginning, and counts the rest.
#[derive(Default)]
struct Cut {
    text: String,
    bytes_left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = if self.bytes_left > 0 { 0 } else { VALUE_BYTES_MAX - self.text.len() };
        let end = part.floor_char_boundary(room);
        self.text.push_str(&part[..end]);
        self.bytes_left += part.len() - end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What strangers would like to see in a log: a line of their own, a cleared screen, a text that reads
    /// backwards.
    const NASTY: &str = "a\nERROR forged\u{1b}[2J\u{9b}1m\u{202e}b\r\0\u{2028}\u{e0041}李🐟";

    #[test]
    fn what_users_write_is_one_printable_line() {
        for is_json in [false, true] {
            let lines = logged(is_json, || {
                tracing::warn!(text = NASTY, shown = %NASTY, debug = ?[NASTY], count = 3, is = true, "{NASTY}");
            });
            assert_eq!(lines.matches('\n').count(), 1, "{lines}");
            let line = lines.trim_end_matches('\n');
            assert!(line.contains("李🐟") && line.contains("ERROR forged"), "{line}");
            let is_plain = |char: char| "'\"\\".contains(char) || char.escape_debug().count() == 1;
            assert!(line.chars().all(is_plain), "{line}");
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let (long, many) = ("é".repeat(40_000), vec!["x"; 10_000]);
        for is_json in [false, true] {
            let lines = logged(is_json, || tracing::warn!(long, shown = %long, many = ?many, "short"));
            assert!(lines.len() < 8 * VALUE_BYTES_MAX, "{}", lines.len());
            assert_eq!(lines.matches(" bytes more").count(), 3, "{lines}");
        }
    }

    #[test]
    fn lines_have_their_form() {
        let write = || tracing::warn!(id = 7, name = "a b", shown = %"c d", "what happened");
        let text = logged(false, write);
        assert!(text.ends_with("log::tests: what happened id=7 name=\"a b\" shown=c d\n"), "{text}");
        let json: Value = serde_json::from_str(&logged(true, write)).unwrap();
        assert_eq!(json["level"], "WARN");
        assert!(json["target"].as_str().unwrap().ends_with("log::tests"), "{json}");
        let fields =
            serde_json::json!({ "id": 7, "name": "a b", "shown": "c d", "message": "what happened" });
        assert_eq!(json["fields"], fields);
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{json}");
    }

    /// A database in trouble causes many lines of its library: one for each slow statement and for each dead
    /// connection.
    #[test]
    fn the_database_library_writes_where_the_filter_names_it() {
        let lines = |directives: &str| {
            let buffer = Buffer::default();
            let builder = tracing_subscriber::fmt().with_writer(buffer.clone());
            tracing::subscriber::with_default(builder.with_env_filter(filter(directives)).finish(), || {
                tracing::warn!(target: "sqlx::query", "slow statement");
                tracing::info!(target: "sqlx_core::pool::inner", "ping on idle connection returned error");
                tracing::info!("our own");
            });
            buffer.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count()
        };
        assert_eq!(["info", "debug", "info,backend=debug"].map(lines), [1, 1, 1]);
        assert_eq!(["info,sqlx=warn", "info,sqlx=info", "info,sqlx_core=off"].map(lines), [2, 3, 2]);
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(is_json: bool, write: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let builder = tracing_subscriber::fmt().with_writer(buffer.clone());
        match is_json {
            true => tracing::subscriber::with_default(builder.event_format(JsonLines).finish(), write),
            false => {
                let text = builder.fmt_fields(TextFields).with_ansi(false).finish();
                tracing::subscriber::with_default(text, write);
            }
        }
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }
}
