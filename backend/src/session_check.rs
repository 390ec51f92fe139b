//! Asks the gateways for the sessions in the tables, and ends those that no gateway has.
//!
//! Events report the end of every session, unless all that knew it die at once: gateway and router, or a node
//! with its clients. Such a session would be online, and a member of its rooms, for ever. So a process goes
//! through the devices that are online, asks the push API where they are, and ends a session that was missing
//! twice, [`CONFIRM_MS`] apart, while the routers said that they know all sessions. If the push API is away,
//! no session ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logs::{info, warn};

use crate::app::App;
use crate::error::Error;
use crate::membership;
use crate::metrics::Family;
use crate::push::USERS_MAX;
use crate::random;
use crate::stop::Stop;
use crate::tables::presence::{self, Device};

/// Checks sessions until it is time to end.
pub(crate) async fn run(app: Arc<App>, mut stop: Stop) {
    tokio::select! {
        biased; // nothing more is asked once it is time to end
        () = stop.wait() => {}
        () = check_all(&app) => {}
    }
}

async fn check_all(app: &App) {
    let (name, mut check, mut failures) = (random::hex::<16>(), Check::default(), 0);
    loop {
        if !is_first(app, &name).await {
            check = Check::default();
            tokio::time::sleep(PASS_PAUSE).await;
            continue;
        }
        let pause = match check.step(app).await {
            Ok(pause) => {
                failures = 0;
                pause
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES_SILENT {
                    warn!(%error, "cannot ask gateways who is online; sessions whose end nobody reported stay online until it works");
                }
                PASS_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether this process is the one that checks. Without the cache every process checks.
async fn is_first(app: &App, name: &str) -> bool {
    match app.store.cache.set_if_absent(HOLDER_KEY, name, HOLDER_TTL).await {
        Ok(Some(holder)) if holder != name => false,
        Ok(Some(_)) => {
            let _ = app.store.cache.set(HOLDER_KEY, name, HOLDER_TTL).await; // it ends, and is taken anew
            true
        }
        Ok(None) | Err(_) => true,
    }
}

/// The progress of a pass through the devices.
#[derive(Default)]
struct Check {
    /// Users up to this one are done in this pass.
    after: Option<i64>,
    /// Sessions that were missing once.
    missing: BTreeMap<Device, Missing>,
}

/// A session that was missing.
struct Missing {
    /// Its stamp.
    login: i64,
    since_ms: i64,
}

impl Check {
    /// Checks some devices. Returns how long to pause then.
    async fn step(&mut self, app: &App) -> Result<Duration, Error> {
        let page = match self.missing.len() < MISSING_MAX {
            true => {
                presence::page(
                    app.store.db.primary(),
                    app.store.config.app,
                    self.after.unwrap_or(i64::MIN),
                    PAGE,
                )
                .await?
            }
            false => Vec::new(),
        };
        let last = page.last().map(|(device, _)| device.user_id);
        let online = page.into_iter().filter(|(_, presence)| presence.is_online());
        let mut asked: BTreeMap<Device, i64> =
            online.map(|(device, presence)| (device, presence.online_login)).collect();
        let now_ms = app.store.clock.now_ms();
        let due = self.missing.iter().filter(|(_, missing)| now_ms - missing.since_ms >= CONFIRM_MS);
        let due: Vec<_> =
            due.take(USERS_MAX).map(|(device, missing)| (device.clone(), missing.login)).collect();
        for (device, login) in due {
            asked.entry(device).or_insert(login);
        }
        let calls = self.ask(app, asked).await?;
        // The position moves on only once its devices were checked.
        self.after = last;
        Ok(match last {
            Some(_) => CALL_PAUSE * calls.max(1),
            None if self.missing.is_empty() => PASS_PAUSE,
            None => Duration::from_secs(1),
        })
    }

    /// Asks for devices that are online in the tables, each with its stamp. Returns the number of calls.
    async fn ask(&mut self, app: &App, asked: BTreeMap<Device, i64>) -> Result<u32, Error> {
        let users: BTreeSet<i64> = asked.keys().map(|device| device.user_id).collect();
        let users: Vec<i64> = users.into_iter().collect();
        let (mut calls, mut ended) = (0, Vec::new());
        let mut devices = asked.into_iter().peekable();
        for chunk in users.chunks(USERS_MAX) {
            calls += 1;
            let answer = app.push.online(app.store.config.app, chunk).await?;
            let last = chunk.last().copied().unwrap_or_default();
            while let Some((device, login)) = devices.next_if(|(device, _)| device.user_id <= last) {
                if answer.sessions.contains(&(device.user_id, device.device.clone())) {
                    self.missing.remove(&device);
                } else if answer.settled && self.is_confirmed(app.store.clock.now_ms(), &device, login) {
                    ended.push((device, login));
                }
            }
        }
        if !ended.is_empty() {
            membership::end(&app.store, &ended).await?;
            for (device, _) in &ended {
                self.missing.remove(device);
            }
            app.metrics.add(SESSIONS, "ended", ended.len() as u64);
            info!(sessions = ended.len(), "ended sessions that no gateway has");
        }
        Ok(calls)
    }

    /// Whether a missing session was missing before, long enough ago.
    fn is_confirmed(&mut self, now_ms: i64, device: &Device, login: i64) -> bool {
        match self.missing.get(device) {
            Some(missing) if missing.login == login => now_ms - missing.since_ms >= CONFIRM_MS,
            _ => {
                self.missing.insert(device.clone(), Missing { login, since_ms: now_ms });
                false
            }
        }
    }
}

/// `ended`.
pub const SESSIONS: &Family = &Family {
    name: "sailfish_backend_sessions_checked_total",
    help: "Sessions that the tables had and no gateway, by result.",
    label: "result",
};
/// The time between the two times that a session is missing: longer than a lease of a link, and than gateways
/// take to announce themselves to a router.
const CONFIRM_MS: i64 = 6_000;
/// Rows that are read at a time.
const PAGE: u32 = 5_000;
/// Sessions that are remembered as missing; beyond that, no more are noted.
const MISSING_MAX: usize = 100_000;
/// The pause after each call: 5,000 users a second are checked.
const CALL_PAUSE: Duration = Duration::from_millis(200);
/// The pause after a pass.
const PASS_PAUSE: Duration = Duration::from_secs(2);
/// Failures that are not logged: a node starts, or is restarted.
const FAILURES_SILENT: u32 = 15;
const HOLDER_KEY: &str = "session_check";
const HOLDER_TTL: Duration = Duration::from_secs(10);
