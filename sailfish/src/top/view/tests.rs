use serde_json::json;

use super::super::keys::Key;
use super::super::reading::Reading;
use super::super::watched::Answer;
use super::*;

const NARROW: Size = Size { columns: 80, lines: 24 };
const WIDE: Size = Size { columns: 160, lines: 40 };

fn moment(seconds: u64) -> Moment {
    Moment { now: Duration::from_secs(seconds), unix: Duration::from_secs(1_763_000_000 + seconds) }
}

/// A gateway after so many seconds of 100 messages each.
fn answer(id: u16, seconds: u64) -> Result<Answer, String> {
    let all = seconds * 100;
    let page = format!(
        "sailfish_connections {id}000\nsailfish_sessions {id}000\nsailfish_rooms 7\n\
         sailfish_frames_in_total{{code=\"business\"}} {all}\n\
         sailfish_frames_out_total{{code=\"business\"}} {all}0\n\
         sailfish_lossy_dropped_total {all}\nsailfish_refused_total 0\n\
         sailfish_delivery_outcome_seconds_bucket{{route=\"room_lossy\",le=\"0.001\"}} {all}\n\
         sailfish_delivery_outcome_seconds_bucket{{route=\"room_lossy\",le=\"+Inf\"}} {all}\n\
         process_cpu_seconds_total {}\nprocess_resident_memory_bytes 104857600\n\
         process_start_time_seconds 1762990000\n",
        seconds as f64 / 2.0,
    );
    let nodes = json!({
        "node": { "id": id, "role": "gateway" },
        "routers": [{ "node": 1, "shard": 0, "up": true, "owner": true, "since_ms": 0, "queued_bytes": 5 }],
    });
    Ok(Answer { reading: Reading::of(&page, Some(&nodes)).unwrap(), remark: None })
}

fn model(gateways: u16) -> Model {
    let admins = (0..=gateways).map(|at| format!("127.0.0.{at}:5347"));
    let mut model = Model::new(admins, Duration::from_secs(1));
    for second in 0..3 {
        for at in 0..gateways {
            model.nodes[usize::from(at)].take(moment(second).now, answer(33 + at, second));
        }
    }
    model.nodes[usize::from(gateways)].take(moment(1).now, Err("Connection refused".into()));
    model
}

fn drawn(model: &Model, size: Size) -> Vec<String> {
    let rows = model.rows(moment(3));
    let lines = screen(model, &rows, moment(3), size);
    lines.iter().map(Line::plain).collect()
}

#[test]
fn a_screen_has_all_that_is_asked_for() {
    let model = model(2);
    let lines = drawn(&model, NARROW);
    let text = lines.join("\n");
    assert_eq!(lines.len(), NARROW.lines, "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= NARROW.columns), "{text}");
    assert!(lines[0].starts_with("sailfish top  asks 3 nodes, 1 without an answer"), "{text}");
    assert!(lines[0].ends_with("every 1s  02:13:23Z"), "{text}");
    assert!(
        lines[1].starts_with("67000 connections  67000 sessions  200 in/s  2000 out/s  200 dropped/s"),
        "{text}"
    );
    for part in [
        "127.0.0.2:5347 ?       no answer",
        "127.0.0.2:5347 has not answered for 2s: Connection refused",
        "All nodes that are asked",
        "room lossy",
        "lossy dropped 200",
        "link 33 -> router 1 shard 0  up, owner,",
        "q quit",
    ] {
        assert!(text.contains(part), "no {part}:\n{text}");
    }
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = lines.iter().map(|line| words(line)).find(|words| words[..1] == ["33"]).unwrap();
    assert_eq!(row[..6], ["33", "gateway", "up", "33000", "100", "1000"], "{text}");
}

#[test]
fn a_wide_screen_has_more_columns() {
    let model = model(1);
    let (narrow, wide) = (drawn(&model, NARROW), drawn(&model, WIDE));
    for title in ["P50", "QUEUED", "TREND", "ADMIN", "FILES"] {
        assert!(!narrow[2].contains(title) && wide[2].contains(title), "{title}:\n{}", wide.join("\n"));
    }
    let table = table(&model.rows(moment(3)));
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(!table.contains("TREND") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| !line.ends_with(' ')), "{table}");
}

#[test]
fn no_size_is_too_small() {
    for gateways in [0, 1, 30] {
        let mut model = model(gateways);
        for at in [None, Some(usize::from(gateways))] {
            model.selected = at.map(Subject::Asked);
            for lines in 0..30 {
                for columns in [0, 1, 5, 20, 80, 500] {
                    let drawn = drawn(&model, Size { columns, lines });
                    assert_eq!(drawn.len(), lines, "{columns} x {lines}");
                }
            }
        }
    }
}

#[test]
fn the_selected_row_is_on_the_screen() {
    let mut model = model(40);
    let keys = |model: &Model| drawn(model, NARROW).pop().unwrap();
    assert!(keys(&model).ends_with("rows 1-10 of 42"), "{}", keys(&model));
    let rows = model.rows(moment(3));
    (0..30).for_each(|_| {
        model.press(Key::Down, &rows, &[]);
    });
    let text = drawn(&model, NARROW).join("\n");
    assert!(text.contains("\n61 "), "{text}");
    assert!(text.contains("Node 61, gateway, at 127.0.0.28:5347"), "{text}");
}

#[test]
fn a_node_by_the_word_of_others_says_how_to_see_more() {
    let mut model = model(1);
    model.selected = Some(Subject::Known(1));
    assert!(drawn(&model, NARROW).join("\n").contains("Node 1 is known by the word of others"));
}
