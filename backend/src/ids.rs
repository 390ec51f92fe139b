//! Ids for new users, orders and anything that a caller names.
//!
//! Each name has one row in the database, which says up to where its ids are given out. A process takes a
//! segment at a time from it, by optimistic versioning, so no two processes ever have the same id, and gives
//! ids from memory. When three quarters of a segment are used, the next one is fetched in the background, so
//! that nobody waits at its end. A segment that is used up quickly makes the next one longer. A process that
//! ends loses the rest of its segments: ids are unique, not without gaps.

mod generator;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::db::{Db, Dialect, Pool};
use crate::error::Error;
use crate::random;
use crate::tables::id_segment;
use generator::{Generator, Source};

/// In which order a process gives ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Order {
    /// Each is above all that this process gave before.
    Ascending,
    /// In random order within a segment: an id does not show how many there are.
    Shuffled,
}

/// The ids of all names. See the module's page.
pub struct Ids {
    segments: Segments,
    generators: Mutex<Generators>,
}

type Generators = BTreeMap<(String, Order), Arc<Generator<Segments>>>;

impl Ids {
    /// Ids from this database.
    pub fn new(db: &Db) -> Self {
        let segments =
            Segments { dialect: db.dialect(), reader: db.primary().clone(), writer: db.writer().clone() };
        Self { segments, generators: Mutex::default() }
    }

    /// One id.
    pub async fn next(&self, name: &str, order: Order) -> Result<i64, Error> {
        Ok(self.take(name, order, 1).await?[0])
    }

    /// `count` ids, which is 1 to `TAKE_MAX`. The first id of a name is 1.
    pub async fn take(&self, name: &str, order: Order, count: u32) -> Result<Vec<i64>, Error> {
        if !(1..=TAKE_MAX).contains(&count) {
            return Err(Error::bad_request(format!("count: want 1 to {TAKE_MAX}")));
        }
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            let message = format!("name: want 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and _");
            return Err(Error::bad_request(message));
        }
        let generator = self.generator(name, order)?;
        generator.take(count as usize).await
    }

    /// How often somebody had to wait for a segment, the first of each name included.
    pub fn waits(&self) -> u64 {
        self.lock().values().map(|generator| generator.waits()).sum()
    }

    fn generator(&self, name: &str, order: Order) -> Result<Arc<Generator<Segments>>, Error> {
        let mut generators = self.lock();
        let key = (name.to_owned(), order);
        if let Some(generator) = generators.get(&key) {
            return Ok(generator.clone());
        }
        if generators.len() >= NAMES_MAX {
            let message = format!("name: this process gives ids of {NAMES_MAX} names already");
            return Err(Error::conflict("too_many_names", message));
        }
        let generator = Generator::new(name, order, self.segments.clone());
        generators.insert(key, generator.clone());
        Ok(generator)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generators> {
        self.generators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Segments from the database.
#[derive(Clone)]
struct Segments {
    dialect: Dialect,
    reader: Pool,
    writer: Pool,
}

impl Source for Segments {
    async fn fetch(&self, name: &str, length: i64) -> Result<i64, Error> {
        for turn in 0..TURNS_MAX {
            let Some((first, version)) = id_segment::get(&self.reader, name).await? else {
                id_segment::insert(&self.writer, self.dialect, name, 1).await?;
                continue;
            };
            let next = first
                .checked_add(length)
                .ok_or_else(|| Error::conflict("ids_exhausted", format!("{name}: all ids are used up")))?;
            if id_segment::advance(&self.writer, name, version, next).await? {
                return Ok(first);
            }
            // Another process was faster. Wait a random time, so that the same ones do not meet again.
            tokio::time::sleep(Duration::from_millis(random::below(1 + 2 * turn))).await;
        }
        Err(Error::unavailable("database_busy", format!("{name}: no segment in {TURNS_MAX} turns")))
    }
}

/// Ids of one call at most.
pub const TAKE_MAX: u32 = 1_000;
/// The longest name.
pub const NAME_BYTES_MAX: usize = 64;
/// Names, each with its orders, that a process gives ids of.
const NAMES_MAX: usize = 1_024;
/// How often a segment is asked for while others are faster.
const TURNS_MAX: u64 = 64;
