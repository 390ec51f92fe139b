//! The backend's part in a run of gifts: coins and a gift before it, and the ledger after it.

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::settings::Settings;
use crate::backend::Client;
use crate::ctl::http::Method;

/// What one gift of the run costs.
const PRICE: i64 = 10;
/// Rooms of one request.
const ROOMS_MAX: usize = 500;
/// Grants of one request.
const GRANTS_MAX: usize = 500;

/// The backend of a run.
pub(super) struct Backend(pub(super) Client);

/// What a run uses in the backend.
pub(super) struct Stage {
    pub(super) gift: i64,
    pub(super) first_room: i64,
    /// The receiver of all gifts.
    pub(super) receiver: i64,
}

/// The backend's books.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Books {
    /// The sum of all ledger rows, in coins.
    ledger: i64,
    /// The sum of all balances.
    balances: i64,
    /// Accounts whose balance is not the sum of their rows.
    differing: i64,
    /// Gifts that were ever committed.
    gifts_committed: i64,
}

impl Backend {
    /// Makes gift, rooms and receiver of the run and gives each client its coins.
    pub(super) fn prepare(&self, settings: &Settings, coins: i64) -> anyhow::Result<Stage> {
        let plan = &settings.plans[0];
        let gift =
            self.post("/internal/gifts", json!({ "name": "load", "price": PRICE, "is_on_sale": true }))?;
        let gift = gift["id"].as_i64().context("the backend names the gift")?;
        let users: Vec<i64> =
            (0..i64::from(settings.connections())).map(|client| plan.first_user + client).collect();
        for users in users.chunks(GRANTS_MAX) {
            let grant = |user: &i64| json!({ "user_id": user, "amount": coins, "id": format!("load-{:08x}-{user}", plan.run) });
            let grants: Vec<Value> = users.iter().map(grant).collect();
            self.post("/internal/wallet/grants", json!({ "grants": grants }))?;
        }
        let rooms = self.rooms(plan.rooms)?;
        Ok(Stage { gift, first_room: rooms[0].0, receiver: rooms[0].1 })
    }

    /// Rooms in a row, each with an owner of its own.
    fn rooms(&self, count: u32) -> anyhow::Result<Vec<(i64, i64)>> {
        let mut rooms = Vec::with_capacity(count as usize);
        while rooms.len() < count as usize {
            let more = (count as usize - rooms.len()).min(ROOMS_MAX);
            let users = self.post("/internal/users", json!({ "count": more }))?["user_ids"].clone();
            let opened =
                self.post("/internal/rooms", json!({ "owner_ids": users, "title": "load" }))?["room_ids"]
                    .clone();
            let (opened, users): (Vec<i64>, Vec<i64>) =
                (serde_json::from_value(opened)?, serde_json::from_value(users)?);
            rooms.extend(opened.into_iter().zip(users));
        }
        rooms.sort_unstable();
        ensure!(
            rooms.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
            "somebody else opens rooms of this backend at the same time; try again"
        );
        Ok(rooms)
    }

    /// The present sums of the ledger.
    pub(super) fn books(&self) -> anyhow::Result<Books> {
        Ok(serde_json::from_value(self.0.ask_internal(Method::Get, "/internal/audit")?)?)
    }

    fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.0.ask_internal(Method::Post(body), path)
    }
}

impl Books {
    /// The sums that are compared after a run, for people: a line each.
    pub(super) fn sums(&self, before: &Books, answered: u64, refused: u64) -> Vec<String> {
        let committed = self.gifts_committed - before.gifts_committed;
        let spent = before.ledger - self.ledger;
        let Books { ledger, balances, differing, .. } = self;
        vec![
            format!("{committed} gifts committed; {answered} answered less {refused} refused"),
            format!("{spent} coins spent; {committed} gifts of {PRICE} coins"),
            format!("{ledger} coins in the ledger; {balances} in the balances, {differing} accounts differ"),
        ]
    }

    /// The faults in the ledger after a run in which `answered` gifts were answered, `refused` of them with a
    /// refusal: a line each.
    pub(super) fn faults(&self, before: &Books, answered: u64, refused: u64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.ledger != self.balances || self.differing != 0 {
            faults.push(format!(
                "the books do not balance: ledger {}, balances {}, {} accounts differ",
                self.ledger, self.balances, self.differing
            ));
        }
        let committed = self.gifts_committed - before.gifts_committed;
        let spent = before.ledger - self.ledger;
        if spent != committed * PRICE {
            faults
                .push(format!("{committed} gifts of {PRICE} coins were committed, and {spent} coins spent"));
        }
        if committed != answered as i64 - refused as i64 {
            faults.push(format!(
                "{committed} gifts were committed, but {answered} answered and {refused} of these refused"
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_that_do_not_balance_are_told() {
        let before = Books { ledger: 1000, balances: 1000, differing: 0, gifts_committed: 5 };
        let after = Books { ledger: 970, balances: 970, differing: 0, gifts_committed: 8 };
        assert_eq!(after.faults(&before, 4, 1), [""; 0]);
        let sums = after.sums(&before, 4, 1).join("\n");
        for sum in [
            "3 gifts committed; 4 answered less 1 refused",
            "30 coins spent; 3 gifts of 10",
            "970 coins in the ledger; 970",
        ] {
            assert!(sums.contains(sum), "{sums}");
        }
        assert_eq!(after.faults(&before, 4, 0).len(), 1, "one was answered and not committed");
        assert_eq!(Books { balances: 971, differing: 1, ..after }.faults(&before, 3, 0).len(), 1);
        assert_eq!(
            Books { ledger: 960, balances: 960, ..after }.faults(&before, 3, 0).len(),
            1,
            "debited twice"
        );
    }
}
