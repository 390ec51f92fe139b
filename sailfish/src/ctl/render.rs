//! Answers for people.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::printable::printable;

/// A line for each user.
pub fn online(answer: &Value) -> String {
    let line = |user: &Value| {
        let devices: Vec<_> = list(&user["devices"]).map(text).collect();
        let state = if devices.is_empty() { "offline".to_owned() } else { devices.join(", ") };
        format!("{:<20} {state}\n", user["user"].to_string())
    };
    list(&answer["users"]).map(line).collect()
}

/// A line for each session of a user.
pub fn user(answer: &Value) -> String {
    let line = |session: &Value| {
        format!(
            "{:<8} on node {} shard {} for {}\n",
            text(&session["device"]),
            session["node"],
            session["shard"],
            age(&session["login_ms"])
        )
    };
    let lines: String = list(&answer["sessions"]).map(line).collect();
    if lines.is_empty() { "offline\n".into() } else { lines }
}

/// The outcome of a message.
pub fn push(answer: &Value) -> String {
    if answer.get("shards").is_some() {
        return format!("sent to {}\n", count(&answer["shards"], "gateway shard"));
    }
    let mut line = text(&answer["outcome"]).into_owned();
    if answer["reason"].is_string() {
        let _ = write!(line, ": {}", text(&answer["reason"]));
    }
    if let Some(sequence) = answer["sequence"].as_u64() {
        let _ = write!(line, ", number {sequence} of its room");
    }
    if answer["message_id"].is_string() {
        let _ = write!(line, " (message {})", text(&answer["message_id"]));
    }
    line + "\n"
}

/// The node that was asked, then routers, bridges and gateways, and nodes that have gone.
pub fn nodes(answer: &Value) -> String {
    let own = &answer["node"];
    let mut out = format!(
        "node {}: {}, {}, {}{}\n",
        own["id"],
        text(&own["role"]),
        count(&own["shards"], "shard"),
        count(&own["connections"], "connection"),
        if own["draining"] == true { ", draining" } else { "" }
    );
    for (role, of_role) in [("router", "routers"), ("bridge", "bridges")] {
        for linked in list(&answer[of_role]) {
            let _ = writeln!(
                out,
                "{role} {} shard {}: {}{} for {}, {} queued",
                linked["node"],
                linked["shard"],
                if linked["up"] == true { "up" } else { "away" },
                if linked["owner"] == true { ", owner" } else { "" },
                age(&linked["since_ms"]),
                count(&linked["queued_bytes"], "byte")
            );
        }
    }
    for gateway in list(&answer["gateways"]) {
        let of = |shard: &Value| format!("{} on shard {}", shard["sessions"], shard["shard"]);
        let shards: Vec<String> = list(&gateway["shards"]).map(of).collect();
        let sessions = count(&gateway["sessions"], "session");
        let _ = writeln!(out, "gateway {}: {sessions} ({})", gateway["node"], shards.join(", "));
    }
    for gone in list(&answer["gone"]) {
        let _ = writeln!(out, "{} {}: gone for {}", text(&gone["role"]), gone["node"], age(&gone["seen_ms"]));
    }
    if answer["missing"].is_string() {
        let _ = writeln!(out, "gateways are missing: {}", text(&answer["missing"]));
    }
    out
}

/// A number and a noun.
pub fn count(number: &Value, noun: &str) -> String {
    let number = number.as_u64().unwrap_or_default();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How long ago that was, in ms since the UNIX epoch.
fn age(since_ms: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    span(now.as_secs().saturating_sub(since_ms.as_u64().unwrap_or_default() / 1_000))
}

/// Seconds in the two largest units.
fn span(secs: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match secs {
        DAY.. => format!("{} d {} h", secs / DAY, secs % DAY / HOUR),
        HOUR.. => format!("{} h {} min", secs / HOUR, secs % HOUR / MINUTE),
        MINUTE.. => format!("{} min {} s", secs / MINUTE, secs % MINUTE),
        _ => format!("{secs} s"),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Cow<'_, str> {
    printable(value.as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_push_says_its_outcome_in_one_line() {
        for (answer, line) in [
            (json!({ "message_id": "5", "outcome": "delivered" }), "delivered (message 5)\n"),
            (json!({ "outcome": "failed", "reason": "busy" }), "failed: busy\n"),
            (
                json!({ "message_id": "5", "outcome": "sequenced", "sequence": 8 }),
                "sequenced, number 8 of its room (message 5)\n",
            ),
            (json!({ "shards": 1 }), "sent to 1 gateway shard\n"),
        ] {
            assert_eq!(push(&answer), line);
        }
    }

    #[test]
    fn each_node_is_called_what_it_is() {
        let link = |node| json!({ "node": node, "shard": 0, "up": true, "owner": node == 1, "since_ms": 0, "queued_bytes": 0 });
        let answer = json!({
            "node": { "id": 33, "role": "gateway", "shards": 1, "connections": 2, "draining": false },
            "routers": [link(1)], "bridges": [link(17)],
            "gateways": [{ "node": 33, "sessions": 0, "shards": [] }],
            "gone": [{ "node": 34, "role": "gateway", "seen_ms": 0 }],
        });
        let text = nodes(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[1].starts_with("router 1 shard 0: up, owner for "), "{text}");
        assert!(
            lines[2].starts_with("bridge 17 shard 0: up for ") && lines[3].starts_with("gateway 33: "),
            "{text}"
        );
        assert!(lines[4].starts_with("gateway 34: gone for "), "{text}");
    }

    #[test]
    fn what_a_server_says_is_text() {
        let answer = json!({ "outcome": "failed", "reason": "\u{1b}[2J\nnode 1: up" });
        assert_eq!(push(&answer), "failed: \\u{1b}[2J\\nnode 1: up\n");
    }

    #[test]
    fn spans_have_units() {
        let spans = [59, 61, 3_660, 90_000].map(span);
        assert_eq!(spans, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn users_are_lined_up() {
        let users =
            json!({ "users": [{ "user": -5, "devices": ["phone", "tv"] }, { "user": 6, "devices": [] }] });
        assert_eq!(online(&users), format!("{:<20} phone, tv\n{:<20} offline\n", -5, 6));
    }
}
