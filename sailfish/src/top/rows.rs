//! The rows of the table: the nodes that are asked, and others that these know.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use super::columns::{Column, TREND_WIDTH};
use super::page::Histogram;
use super::reading::{Counter, Gauge, Known, KnownState, Role, Stage};
use super::units;
use super::watched::Watched;

/// Which node a row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A node that is asked, by its index.
    Asked(usize),
    /// Another one, by its number.
    Known(u16),
}

/// The state of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// It has not answered yet.
    Asked,
    Up,
    Draining,
    Silent,
    /// As another node reports.
    Known(KnownState),
}

impl State {
    /// Its name on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Silent => "no answer",
            Self::Known(KnownState::Linked) => "linked",
            Self::Known(KnownState::Away) => "away",
            Self::Known(KnownState::Gone) => "gone",
        }
    }
}

/// A row of the table.
pub struct Row {
    pub subject: Subject,
    pub id: Option<u16>,
    pub role: Option<Role>,
    pub state: State,
    numbers: [Option<f64>; Column::COUNT],
    /// Set for a node that is asked.
    admin: String,
    trend: String,
}

impl Row {
    /// The number in a column.
    pub const fn number(&self, column: Column) -> Option<f64> {
        self.numbers[column as usize]
    }

    /// The text in a column.
    pub fn text(&self, column: Column) -> String {
        match column {
            // A node that never answered has no known number.
            Column::Node => self.id.map_or_else(|| self.admin.clone(), |id| id.to_string()),
            Column::Role => self.role.map_or("?", Role::name).into(),
            Column::State => self.state.name().into(),
            Column::Trend => self.trend.clone(),
            Column::Admin => self.admin.clone(),
            _ => column.number(self.number(column)),
        }
    }

    fn of_watched(at: usize, node: &Watched, now_unix: Duration) -> Self {
        let last = node.last();
        let state = match (node.silence(), last) {
            (Some(_), _) => State::Silent,
            (None, None) => State::Asked,
            (None, Some(reading)) if reading.is_draining => State::Draining,
            (None, Some(_)) => State::Up,
        };
        let started = node.gauge(Gauge::Started);
        let mut outcomes = Histogram::default();
        node.latency().0[Stage::Outcome as usize].iter().for_each(|route| outcomes.add(route));
        let drops = Counter::DROPS.iter().filter_map(|drop| node.rate(*drop)).reduce(|sum, part| sum + part);
        let numbers = Column::ALL.map(|column| match column {
            Column::Node | Column::Role | Column::State | Column::Trend | Column::Admin => None,
            Column::Connections => node.gauge(Gauge::Connections),
            Column::Sessions => node.gauge(Gauge::Sessions),
            Column::Rooms => node.gauge(Gauge::Rooms),
            Column::In => node.rate(Counter::In),
            Column::Out => node.rate(Counter::Out),
            Column::Median => outcomes.quantile(0.5),
            Column::Slowest => outcomes.quantile(0.99),
            Column::Drops => drops,
            Column::Queued => node.gauge(Gauge::QueuedBytes),
            Column::Cpu => node.rate(Counter::Cpu),
            Column::Rss => node.gauge(Gauge::RssBytes),
            Column::Files => node.gauge(Gauge::OpenFiles),
            Column::Uptime => started.filter(|at| *at > 0.0).map(|at| now_unix.as_secs_f64() - at),
        });
        Self {
            subject: Subject::Asked(at),
            id: last.and_then(|reading| reading.id),
            role: last.map(|reading| reading.role),
            state,
            numbers,
            admin: node.admin.clone(),
            trend: units::sparkline(&node.rates(Counter::In, TREND_WIDTH), TREND_WIDTH),
        }
    }

    fn of_known(known: &Known) -> Self {
        let mut numbers = [None; Column::COUNT];
        numbers[Column::Sessions as usize] = known.sessions.map(|sessions| sessions as f64);
        Self {
            subject: Subject::Known(known.node),
            id: Some(known.node),
            role: known.role,
            state: State::Known(known.state),
            numbers,
            admin: String::new(),
            trend: String::new(),
        }
    }
}

/// A row for each node that is asked, and for each other one that these know.
pub fn rows(nodes: &[Watched], now_unix: Duration) -> Vec<Row> {
    let mut rows: Vec<Row> =
        nodes.iter().enumerate().map(|(at, node)| Row::of_watched(at, node, now_unix)).collect();
    let mut others: BTreeMap<u16, Known> = BTreeMap::new();
    for known in nodes.iter().filter_map(Watched::current).flat_map(|reading| &reading.known) {
        if rows.iter().any(|row| row.id == Some(known.node)) {
            continue;
        }
        let other = others.entry(known.node).or_insert_with(|| known.clone());
        // Nodes may disagree: one that is linked with it knows best.
        other.state = other.state.min(known.state);
        other.role = other.role.or(known.role);
        other.sessions = other.sessions.max(known.sessions);
    }
    rows.extend(others.values().map(Row::of_known));
    rows
}

/// Which column rows are sorted by, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    pub column: Column,
    /// The reverse of the column's first order: words ascend, numbers descend.
    pub is_reversed: bool,
}

impl Order {
    /// Sorts rows. Those without a number come last in either direction.
    pub fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| self.compare(a, b).then_with(|| by_node(a, b)));
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let turned = |order: Ordering| if self.is_reversed { order.reverse() } else { order };
        match self.column {
            Column::Node => turned(by_node(a, b)),
            Column::Role => turned(a.role.cmp(&b.role)),
            Column::State => turned(a.state.cmp(&b.state)),
            Column::Admin => turned(a.admin.cmp(&b.admin)),
            column => {
                let column = if column == Column::Trend { Column::In } else { column };
                match (a.number(column), b.number(column)) {
                    (Some(a), Some(b)) => turned(b.total_cmp(&a)),
                    (a, b) => a.is_none().cmp(&b.is_none()),
                }
            }
        }
    }
}

/// By number; those without one come last.
fn by_node(a: &Row, b: &Row) -> Ordering {
    (a.id.is_none(), a.id, a.subject).cmp(&(b.id.is_none(), b.id, b.subject))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::reading::Reading;
    use super::super::watched::Answer;
    use super::*;

    fn gateway(id: u16, connections: u64) -> Watched {
        let nodes = json!({
            "node": { "id": id, "role": "gateway" },
            "routers": [{ "node": 1, "shard": 0, "up": id == 33 }, { "node": 2, "shard": 0, "up": false }],
            "gateways": [{ "node": 33, "sessions": 3 }, { "node": 34, "sessions": 4 }, { "node": 35, "sessions": 5 }],
            "gone": [{ "node": 9, "role": "bridge", "seen_ms": 0 }, { "node": 1, "role": "router", "seen_ms": 0 }],
        });
        let page = format!("sailfish_connections {connections}\nprocess_start_time_seconds 1000\n");
        let mut node = Watched::new(format!("10.0.0.{id}:5347"));
        let reading = Reading::of(&page, Some(&nodes)).unwrap();
        node.take(Duration::ZERO, Ok(Answer { reading, remark: None }));
        node
    }

    fn ids(rows: &[Row]) -> Vec<Option<u16>> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn every_node_has_one_row() {
        let mut silent = Watched::new("10.0.0.99:5347".into());
        silent.take(Duration::ZERO, Err("refused".into()));
        let nodes = [gateway(34, 7), gateway(33, 8), silent, Watched::new("10.0.0.98:5347".into())];
        let rows = rows(&nodes, Duration::from_secs(4_600));
        let table: Vec<_> = rows
            .iter()
            .map(|row| (row.text(Column::Node), row.text(Column::Role), row.state.name()))
            .collect();
        let wanted = [
            ("34", "gateway", "up"),
            ("33", "gateway", "up"),
            ("10.0.0.99:5347", "?", "no answer"),
            ("10.0.0.98:5347", "?", "asked"),
            ("1", "router", "linked"),
            ("2", "router", "away"),
            ("9", "bridge", "gone"),
            ("35", "gateway", "linked"),
        ];
        assert_eq!(table, wanted.map(|(node, role, state)| (node.into(), role.into(), state)));
        assert_eq!(rows[0].text(Column::Connections), "7");
        assert_eq!(rows[0].text(Column::Uptime), "1h");
        assert_eq!(
            (rows[7].text(Column::Sessions), rows[7].text(Column::Connections)),
            ("5".into(), "-".into())
        );
    }

    #[test]
    fn a_node_that_falls_silent_keeps_its_number() {
        let mut nodes = [gateway(34, 7), gateway(33, 8)];
        nodes[0].take(Duration::from_secs(1), Err("refused".into()));
        let rows = rows(&nodes, Duration::ZERO);
        assert_eq!(
            (rows[0].id, rows[0].state, rows[0].number(Column::Connections)),
            (Some(34), State::Silent, None)
        );
        assert_eq!(rows.iter().filter(|row| row.id == Some(34)).count(), 1);
    }

    #[test]
    fn rows_are_sorted_both_ways() {
        let nodes = [gateway(34, 7), gateway(33, 8)];
        let mut rows = rows(&nodes, Duration::ZERO);
        let mut sorted = |column, is_reversed| {
            Order { column, is_reversed }.sort(&mut rows);
            ids(&rows).into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(sorted(Column::Node, false), [1, 2, 9, 33, 34, 35]);
        assert_eq!(sorted(Column::Node, true), [35, 34, 33, 9, 2, 1]);
        assert_eq!(sorted(Column::Connections, false), [33, 34, 1, 2, 9, 35]);
        assert_eq!(sorted(Column::Connections, true), [34, 33, 1, 2, 9, 35], "without a number comes last");
        assert_eq!(sorted(Column::State, false), [33, 34, 1, 35, 2, 9]);
    }
}
