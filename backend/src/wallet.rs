//! Coins that are given away.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::db::insist;
use crate::error::Error;
use crate::store::Store;
use crate::tables::account::{self, Entry};

#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "user_id": 10001, "amount": 100, "id": "welcome" })))]
pub struct Grant {
    /// The user who gets them.
    pub user_id: i64,
    /// In coins, 1 to 1,000,000,000,000.
    pub amount: i64,
    /// The caller's id for it, of 1 to 64 bytes: a user gets coins once for each id.
    pub id: String,
}

/// Gives users coins, all of these or none. Returns how many grants are new.
///
/// # Errors
/// 400 for a malformed grant, 409 if other coins were given under its id.
pub async fn give(store: &Store, mut grants: Vec<Grant>) -> Result<usize, Error> {
    check(&grants)?;
    grants.sort_by_key(|grant| grant.user_id); // accounts are locked in this order
    // Two transactions that make one account at the same time may block each other.
    let granted = insist(|| try_give(store, &grants)).await?;
    // A cache that is away forgets by itself, some seconds later.
    let _ = store.cache.forget_available(&granted).await;
    Ok(granted.len())
}

fn check(grants: &[Grant]) -> Result<(), Error> {
    for (at, grant) in grants.iter().enumerate() {
        let within = |what: String| Error::bad_request(format!("grants[{at}].{what}"));
        if grant.user_id <= 0 {
            return Err(within(format!("user_id: want a positive number, not {}", grant.user_id)));
        }
        if !(1..=GRANT_MAX).contains(&grant.amount) {
            return Err(within(format!("amount: want 1 to {GRANT_MAX}, not {}", grant.amount)));
        }
        if !(1..=ID_BYTES_MAX).contains(&grant.id.len()) {
            return Err(within(format!("id: want 1 to {ID_BYTES_MAX} bytes, not {}", grant.id.len())));
        }
    }
    Ok(())
}

/// One transaction. Returns who got coins.
async fn try_give(store: &Store, grants: &[Grant]) -> Result<Vec<i64>, Error> {
    let (dialect, now_ms) = (store.db.dialect(), store.clock.now_ms());
    let mut tx = store.db.begin().await?;
    let mut granted = Vec::with_capacity(grants.len());
    for grant in grants {
        let reference = grant.id.clone().into_bytes();
        // This makes the account and locks it. So another request under the same id has committed, or waits.
        account::credit(&mut tx, dialect, grant.user_id, 0).await?;
        match account::amount(&mut tx, grant.user_id, KIND, &reference).await? {
            None => {
                let entry = Entry { user_id: grant.user_id, amount: grant.amount, kind: KIND, reference };
                account::credit(&mut tx, dialect, grant.user_id, grant.amount).await?;
                account::record(&mut tx, &[entry], now_ms).await?;
                granted.push(grant.user_id);
            }
            Some(amount) if amount == grant.amount => {} // given before
            Some(amount) => {
                let message =
                    format!("id: {amount} coins were already given to {} under this id", grant.user_id);
                return Err(Error::conflict("id_reused", message));
            }
        }
    }
    tx.commit().await?;
    Ok(granted)
}

const KIND: &str = "grant";
/// The most coins of one grant.
const GRANT_MAX: i64 = 1_000_000_000_000;
const ID_BYTES_MAX: usize = 64;
