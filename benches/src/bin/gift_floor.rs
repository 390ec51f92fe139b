//! Gifts a second of the bare transaction: the floor of `cargo xtask bench gift`. Prints one number.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use std::time::{Duration, Instant};

use backend::{App, Clock, Config, Contents, Error, GiftRequest, Identity};
use clap::Parser;
use sqlx::AssertSqlSafe;

/// Senders of one batch.
const SENDERS: usize = 200;
/// What each of them has: enough for any measurement.
const COINS: i64 = 1 << 50;
const PRICE: i64 = 10;

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
        let rate = floor(&app, batch, Duration::from_secs(seconds)).await?;
        app.store.db.close().await;
        anyhow::Ok(rate)
    })?;
    println!("{rate:.0}");
    Ok(())
}

/// Commits batches of gifts, one after the other, for that long: without queue, hold, HTTP and those who
/// wait. How many gifts a second are paid.
async fn floor(app: &App, batch: usize, time: Duration) -> Result<f64, Error> {
    // Other ids than those of a run before on the same database.
    let first = 1_000_000_000 + app.store.clock.now_ms() % (1 << 32);
    let (senders, contents) = prepare(app, first).await?;
    let (start, mut sent, mut paid) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        let request = |number: usize| GiftRequest {
            trace: None,
            identity: Identity { sender_id: senders[number % SENDERS], key: format!("{number:016x}") },
            contents,
            price: Some(PRICE),
            is_in_room: true,
        };
        paid += app.gifts.commit((sent..sent + batch).map(request).collect()).await?;
        sent += batch;
    }
    Ok(paid as f64 / start.elapsed().as_secs_f64())
}

/// Senders with coins, and a gift of theirs, with its receiver and its room.
async fn prepare(app: &App, id: i64) -> Result<(Vec<i64>, Contents), Error> {
    let user = format!(
        "INSERT INTO t_user_{:02} (id, name, avatar, sex, city, bio, created_ms) VALUES ({id}, 'floor', '', 0, '', '', 0)",
        id % 100
    );
    let statements = [
        format!(
            "INSERT INTO t_gift (id, name, icon, price, is_on_sale) VALUES ({id}, 'floor', '', {PRICE}, 1)"
        ),
        format!(
            "INSERT INTO t_room (id, owner_id, open_owner_id, title, is_open, opened_ms) VALUES ({id}, {id}, {id}, 'floor', 1, 0)"
        ),
        user,
    ];
    let senders: Vec<i64> = (id..).take(SENDERS).collect();
    let account =
        |sender: &i64| format!("INSERT INTO t_account (user_id, balance) VALUES ({sender}, {COINS})");
    let mut tx = app.store.db.begin().await?;
    for statement in statements.into_iter().chain(senders.iter().map(account)) {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok((senders, Contents { gift_id: id, room_id: id, receiver_id: id, count: 1, code: 5556 }))
}
