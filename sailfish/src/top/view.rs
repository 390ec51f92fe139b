//! The screen: the table of nodes above, details of one or of all below.

use std::time::Duration;

use super::columns::{Column, GAP};
use super::details;
use super::lines::{Line, Style};
use super::model::{Model, Moment};
use super::reading::{KnownState, Role};
use super::rows::{Row, State, Subject};
use super::units;

/// Lines of the screen without rows and details: title, totals, titles of columns, keys.
const FIXED_LINES: usize = 4;
/// How many nodes that do not answer get a note below the table.
const NOTES_MAX: usize = 3;
const KEYS: &str = "q quit  ←→ sort  r reverse  ↑↓ node  Esc all nodes";

/// Columns and lines of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub columns: usize,
    pub lines: usize,
}

/// The screen at a moment: as many lines as the terminal has, or fewer.
pub fn screen(model: &Model, rows: &[Row], moment: Moment, size: Size) -> Vec<Line> {
    let columns = columns(rows, size);
    let notes = notes(model, moment);
    let notes = &notes[..notes.len().min(NOTES_MAX)];
    let details = details::lines(model, rows, moment, size.columns);
    let free = size.lines.saturating_sub(FIXED_LINES + notes.len());
    let beside_details = free.saturating_sub(details.len() + 1);
    let shown = rows.len().min(beside_details.max(free.div_ceil(2)));
    let selected = rows.iter().position(|row| Some(row.subject) == model.selected);
    let first = selected.map_or(0, |at| (at + 1).saturating_sub(shown));

    let mut lines = vec![title(model, moment, size), totals(model, rows)];
    lines.push(titles(model, rows, &columns, size));
    for (at, row) in rows.iter().enumerate().skip(first).take(shown) {
        lines.push(table_line(row, rows, &columns, (selected == Some(at)).then_some(size.columns)));
    }
    lines.extend_from_slice(notes);
    lines.push(Line::default());
    lines.extend(details);
    lines.truncate(size.lines.saturating_sub(1));
    lines.resize_with(size.lines.saturating_sub(1), Line::default);
    let mut keys = Line::of(Style::Quiet, KEYS);
    if shown < rows.len() {
        keys.push(Style::Quiet, format!("  rows {}-{} of {}", first + 1, first + shown, rows.len()));
    }
    lines.push(keys);
    lines.truncate(size.lines);
    lines
}

/// The columns that fit.
pub fn columns(rows: &[Row], size: Size) -> Vec<Column> {
    Column::fitting(size.columns, |column| width(rows, column))
}

/// The table without styles, and without columns that need several readings.
pub fn table(rows: &[Row]) -> String {
    let columns: Vec<Column> = Column::ALL.into_iter().filter(|column| *column != Column::Trend).collect();
    let mut titles = Line::default();
    for column in &columns {
        titles.push(Style::Plain, cell(rows, *column, column.title().into()));
    }
    let lines = rows.iter().map(|row| table_line(row, rows, &columns, None));
    std::iter::once(titles).chain(lines).map(|line| line.plain() + "\n").collect()
}

/// Notes on nodes that report less than they should.
fn notes(model: &Model, moment: Moment) -> Vec<Line> {
    let note = |node: &super::watched::Watched| match (node.silence(), node.remark()) {
        (Some((since, why)), _) => {
            let age = units::age(moment.now.saturating_sub(since).as_secs_f64());
            Some(Line::of(Style::Bad, format!("{} has not answered for {age}: {why}", node.admin)))
        }
        (None, Some(remark)) => Some(Line::of(Style::Warning, format!("{} {remark}", node.admin))),
        (None, None) => None,
    };
    model.nodes.iter().filter_map(note).collect()
}

fn title(model: &Model, moment: Moment, size: Size) -> Line {
    let seconds = moment.unix.as_secs() % 86_400;
    let clock = format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let silent = model.nodes.iter().filter(|node| node.silence().is_some()).count();
    let asked = model.nodes.len();
    let mut line = Line::of(Style::Strong, "sailfish top");
    line.push(Style::Plain, format!("  asks {asked} node{}", if asked == 1 { "" } else { "s" }));
    if silent > 0 {
        line.push(Style::Plain, ", ");
        line.push(Style::Bad, format!("{silent} without an answer"));
    }
    let end = format!("every {}  {clock}", every(model.interval));
    line.fill(Style::Plain, size.columns.saturating_sub(end.len()).max(line.width() + 2));
    line.push(Style::Quiet, end);
    line
}

fn every(interval: Duration) -> String {
    format!("{}s", interval.as_secs_f64())
}

/// The totals of all nodes with clients.
fn totals(model: &Model, rows: &[Row]) -> Line {
    let has_clients = |row: &&Row| matches!(row.role, Some(Role::Up | Role::Gateway));
    let sum = |column| {
        let numbers = rows.iter().filter(has_clients).filter_map(|row| row.number(column));
        numbers.reduce(|sum, number| sum + number)
    };
    let drops = rows.iter().filter_map(|row| row.number(Column::Drops)).reduce(|sum, part| sum + part);
    let mut line = Line::default();
    let parts = [
        (sum(Column::Connections).map(units::count), "connection"),
        (sum(Column::Sessions).map(units::count), "session"),
        (sum(Column::In).map(units::count), "in/s"),
        (sum(Column::Out).map(units::count), "out/s"),
        (drops.map(units::count), "dropped/s"),
    ];
    for (number, what) in parts {
        let Some(number) = number else { continue };
        let is_bad = what == "dropped/s" && number != "0";
        let plural = if what.ends_with("/s") || number == "1" { "" } else { "s" };
        line.push(if is_bad { Style::Bad } else { Style::Strong }, number);
        line.push(Style::Plain, format!(" {what}{plural}  "));
    }
    if line.width() == 0 && model.nodes.iter().all(|node| node.last().is_none()) {
        line.push(Style::Quiet, "waiting for the first answer");
    }
    line
}

fn titles(model: &Model, rows: &[Row], columns: &[Column], size: Size) -> Line {
    let mut line = Line::default();
    for column in columns {
        let style = if *column == model.order.column { Style::SortTitle } else { Style::Title };
        line.push(style, cell(rows, *column, column.title().into()));
    }
    line.fill(Style::Title, size.columns);
    line
}

/// A row of the table; one that is selected is as wide as the terminal.
fn table_line(row: &Row, rows: &[Row], columns: &[Column], selected: Option<usize>) -> Line {
    let mut line = Line::default();
    for column in columns {
        let style = match column {
            _ if selected.is_some() => Style::Selected,
            Column::State => style_of(row.state),
            Column::Drops if row.number(*column).is_some_and(|drops| drops > 0.0) => Style::Bad,
            _ if matches!(row.subject, Subject::Known(_)) => Style::Quiet,
            _ => Style::Plain,
        };
        line.push(style, cell(rows, *column, row.text(*column)));
    }
    if let Some(characters) = selected {
        line.fill(Style::Selected, characters);
    }
    line
}

const fn style_of(state: State) -> Style {
    match state {
        State::Up => Style::Good,
        State::Asked | State::Known(KnownState::Linked) => Style::Quiet,
        State::Draining | State::Known(KnownState::Away) => Style::Warning,
        State::Silent | State::Known(KnownState::Gone) => Style::Bad,
    }
}

/// A text in its column, with the gap after it.
fn cell(rows: &[Row], column: Column, text: String) -> String {
    let (width, gap) = (width(rows, column), " ".repeat(GAP));
    if column.has_words() { format!("{text:<width$}{gap}") } else { format!("{text:>width$}{gap}") }
}

/// Names of nodes may need more than others.
fn width(rows: &[Row], column: Column) -> usize {
    match column {
        Column::Node | Column::Admin => {
            let texts = rows.iter().map(|row| row.text(column).chars().count());
            texts.max().unwrap_or_default().max(column.width())
        }
        _ => column.width(),
    }
}

#[cfg(test)]
mod tests;
