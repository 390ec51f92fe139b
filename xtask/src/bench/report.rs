//! The table, as text, as JSON and as a page of docs/measurements.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::machine::date;
use super::measure::Figure;
use super::rows::Goal;
use crate::root;

/// The table in plain text.
pub fn table(figures: &[Figure]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(figures.iter().map(cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            // Names and words to the left, numbers to the right.
            let (left, right) =
                if NUMBERS.contains(&column) { (padding, String::new()) } else { (String::new(), padding) };
            write!(line, "{left}{cell}{right}  ").expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes `[{name, value, floor, ratio, must, aim, ok}]`. `ok` speaks of `must` and is null in a row that is
/// for information.
pub fn write_json(file: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Line {
        name: &'static str,
        value: f64,
        floor: Option<f64>,
        ratio: Option<f64>,
        must: Option<f64>,
        aim: Option<f64>,
        ok: Option<bool>,
    }
    let line = |figure: &Figure| Line {
        name: figure.row.name,
        value: figure.value,
        floor: figure.floor,
        ratio: figure.ratio(),
        must: figure.must(),
        aim: figure.aim(),
        ok: figure.ok(),
    };
    let lines: Vec<Line> = figures.iter().map(line).collect();
    let mut text = serde_json::to_string_pretty(&lines)?;
    text.push('\n');
    fs::write(file, text).with_context(|| file.display().to_string())
}

/// Keeps the table under docs/measurements, one page a day.
pub fn keep(machine: &str, figures: &[Figure]) -> anyhow::Result<PathBuf> {
    let date = date();
    let mut page = format!(
        "# Bench of {date}\n\n\
         - Machine: {machine}\n\
         - Command: `cargo xtask bench`\n\
         - Server on core 0, load on core 1; each figure is the median of its runs, taken in turns with what it is compared with.\n\n"
    );
    let line = |cells: &[String; COLUMNS]| format!("| {} |\n", cells.join(" | "));
    page.push_str(&line(&HEAD.map(str::to_owned)));
    page.push_str(&line(&std::array::from_fn(|at| {
        if NUMBERS.contains(&at) { "---:" } else { "---" }.to_owned()
    })));
    figures.iter().for_each(|figure| page.push_str(&line(&cells(figure))));
    let folder = root().join("docs/measurements");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{date}-bench.md"));
    fs::write(&file, page)?;
    Ok(file)
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }

    fn must(&self) -> Option<f64> {
        match self.row.goal {
            Goal::AtMost { must, .. } | Goal::AtLeast { must, .. } => Some(must),
            Goal::None => None,
        }
    }

    fn aim(&self) -> Option<f64> {
        match self.row.goal {
            Goal::AtMost { aim, .. } | Goal::AtLeast { aim, .. } => Some(aim),
            Goal::None => None,
        }
    }

    fn ok(&self) -> Option<bool> {
        self.must().map(|must| self.reaches(must))
    }

    fn reaches(&self, limit: f64) -> bool {
        let judged = self.ratio().unwrap_or(self.value);
        match self.row.goal {
            Goal::AtMost { .. } => judged <= limit,
            Goal::AtLeast { .. } => judged >= limit,
            Goal::None => true,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.ok(), self.aim()) {
            (Some(false), _) => "FALLS SHORT",
            (Some(true), Some(aim)) if self.reaches(aim) => "aim",
            (Some(true), _) => "must",
            (None, _) => "",
        }
    }
}

const COLUMNS: usize = 9;
const HEAD: [&str; COLUMNS] =
    ["name", "measure", "value", "compared with", "ratio", "must", "aim", "reached", "note"];
/// The columns that hold numbers.
const NUMBERS: std::ops::RangeInclusive<usize> = 2..=6;

fn cells(figure: &Figure) -> [String; COLUMNS] {
    let with_unit = |number: f64| format!("{} {}", digits(number), figure.unit);
    let sign = if matches!(figure.row.goal, Goal::AtLeast { .. }) { ">=" } else { "<=" };
    let limit = |limit: Option<f64>| limit.map_or(String::new(), |limit| format!("{sign} {limit}"));
    [
        figure.row.name.to_owned(),
        figure.row.title.to_owned(),
        with_unit(figure.value),
        figure.floor.map_or(String::new(), with_unit),
        figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
        limit(figure.must()),
        limit(figure.aim()),
        figure.verdict().to_owned(),
        figure.note.clone(),
    ]
}

/// Three digits that matter.
fn digits(number: f64) -> String {
    let decimals = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows;

    fn figure(name: &str, value: f64, floor: Option<f64>) -> Figure {
        let row = rows::all().find(|row| row.name == name).expect("a row of the table").clone();
        Figure { row, value, unit: "us", floor, note: String::new() }
    }

    #[test]
    fn the_ratio_is_judged_in_the_direction_of_the_row() {
        assert_eq!(figure("heartbeat", 12.0, Some(10.0)).verdict(), "must");
        assert_eq!(figure("heartbeat", 13.0, Some(10.0)).verdict(), "FALLS SHORT");
        assert_eq!(figure("storm", 9.0, Some(10.0)).verdict(), "aim");
        assert_eq!(figure("storm", 6.0, Some(10.0)).ok(), Some(false));
    }

    #[test]
    fn without_a_floor_the_value_is_judged() {
        assert_eq!(figure("memory", 299.0, None).verdict(), "must");
        assert_eq!(figure("memory", 301.0, None).ok(), Some(false));
        assert_eq!(figure("memory-nats", 20_000.0, None).ok(), None);
    }
}
