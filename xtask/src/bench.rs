//! `cargo xtask bench`: the ratio table of docs/measurements, in one go on one machine.
//!
//! Server on core 0, load on core 1, one server at a time and a fresh one for each run. What is compared runs
//! in turns (floor, subject, floor, subject ...) at the same rate, and a figure is the median of its runs:
//! the machine may be shared. A figure that falls short is printed as such and is no failure; one that could
//! not be measured is.

mod gift;
mod load;
pub mod machine;
mod measure;
mod report;
mod rows;
mod server;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{bail, ensure};

use measure::Bench;
pub use measure::build;
use rows::{GROUPS, Goal, Group, Row};
pub use server::get;

/// Above this, what is measured is the company more than the server.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Measure this instead of the table.
    #[arg(value_enum)]
    what: Option<What>,
    /// Write the rows to FILE too, as [{name, value, floor, ratio, must, aim, ok}].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure the row NAME only; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Shorter runs, and without the rows that are for information unless --only names them.
    #[arg(long)]
    quick: bool,
    /// Show the names of the rows and measure nothing.
    #[arg(long)]
    list: bool,
}

/// What is measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Gifts committed a second, and how long a client waits for the effect.
    Gift,
}

/// Measures the rows that are asked for and prints them as a table.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.what == Some(What::Gift) {
        return gift::run(arguments.quick);
    }
    if arguments.list {
        rows::all().for_each(|row| println!("{:<20} {}", row.name, row.title));
        return Ok(());
    }
    for name in &arguments.only {
        ensure!(rows::all().any(|row| row.name == name), "no row {name:?}; --list shows them");
    }
    let start = Instant::now();
    let bench = Bench::build(arguments.quick)?;
    let mut measured = Vec::new();
    let mut failed = Vec::new();
    for group in GROUPS.iter().filter_map(|group| group.reduced(arguments)) {
        match bench.measure(&group) {
            Ok(figures) => measured.extend(figures),
            Err(error) => {
                eprintln!("bench: {}: {error:#}", group.name);
                failed.push(group.name);
            }
        }
    }
    let [others_0, others_1] = bench.others_percent();
    let machine = format!(
        "{}; others took {others_0:.0} % of core 0 and {others_1:.0} % of core 1",
        machine::describe()
    );
    println!("\n{}", report::table(&measured));
    if others_0.max(others_1) > OTHERS_PERCENT_MAX {
        println!("The machine was busy with other things: these figures tell little.");
    }
    println!("{machine}; {} rows in {:.0} s", measured.len(), start.elapsed().as_secs_f64());
    if let Some(file) = &arguments.json {
        report::write_json(file, &measured)?;
    }
    if arguments.only.is_empty() && !arguments.quick && failed.is_empty() {
        println!("kept as {}", report::keep(&machine, &measured)?.display());
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

impl Group {
    /// The group with the rows that are asked for; `None` when it has none of them.
    fn reduced(&self, arguments: &Arguments) -> Option<Group> {
        let wanted = |row: &&Row| match arguments.only.as_slice() {
            [] => !arguments.quick || row.goal != Goal::None,
            names => names.iter().any(|name| name == row.name),
        };
        let rows = self.rows.iter().filter(wanted).cloned().collect::<Vec<_>>();
        (!rows.is_empty()).then(|| Group { rows: rows.into(), ..self.clone() })
    }
}
