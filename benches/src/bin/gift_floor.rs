//! Gifts a second of the bare transaction: the floor of `cargo xtask bench gift`. Prints one number.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use std::time::Duration;

use backend::{App, Clock, Config};
use clap::Parser;

/// Commits batches of gifts straight into a database.
#[derive(Parser)]
struct Arguments {
    /// sqlite:FILE or mysql://USER:PASSWORD@HOST:PORT/NAME.
    #[arg(long)]
    database: String,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Gifts of a transaction.
    #[arg(long, default_value_t = 512)]
    batch: usize,
}

fn main() -> anyhow::Result<()> {
    let Arguments { database, seconds, batch } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rate = runtime.block_on(async {
        let app = App::open(Config { database, ..Config::default() }, Clock::default()).await?;
        let rate = backend::gift_floor(&app.gifts, batch, Duration::from_secs(seconds)).await?;
        app.store.db.close().await;
        anyhow::Ok(rate)
    })?;
    println!("{rate:.0}");
    Ok(())
}
