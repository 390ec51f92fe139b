//! Login codes: who may request one, and who may try one.
//!
//! A code is in the cache, under the hash of its phone: without a cache nobody can log in, but existing
//! logins go on.
//!
//! A request counts against its address before it counts against the phone, so that a stranger uses up his
//! own share only. An address is *familiar* to a phone that has logged in from there: codes and tries of
//! strangers do not count against it.

use std::time::Duration;

use logs::warn;

use crate::app::App;
use crate::error::{Error, NO_SENDER};
use crate::http::address::Address;
use crate::http::internal::are_same;
use crate::phone::Phone;
use crate::random;

/// A code that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// The six digits.
    pub digits: String,
    /// When it ends, in ms since the UNIX epoch.
    pub ends_ms: i64,
    /// The address that requested it.
    asker: String,
}

/// A phone, and the address of a caller that names it.
pub struct Asker {
    phone: Phone,
    address: String,
    /// The network of the address.
    network: String,
    keys: Keys,
}

/// The cache keys for them.
struct Keys {
    /// The phone's code.
    code: String,
    sends: String,
    sends_of_strangers: String,
    /// Codes that this address requested for this phone.
    own_sends: String,
    tries: String,
    wrong_tries: String,
    waits: String,
    familiar: String,
}

impl Asker {
    /// A caller at an address that names a phone.
    pub fn new(phone: Phone, address: Address) -> Self {
        let (phone_key, network, address) = (phone.key(), address.network(), address.to_string());
        let both = format!("{phone_key}:{address}");
        let keys = Keys {
            code: format!("login_code:{phone_key}"),
            sends: format!("login_code_sends:{phone_key}"),
            sends_of_strangers: format!("login_code_strangers:{phone_key}"),
            own_sends: format!("login_code_sends_from:{both}"),
            tries: format!("login_tries:{both}"),
            wrong_tries: format!("login_wrong:{both}"),
            waits: format!("login_waits:{both}"),
            familiar: format!("login_familiar:{both}"),
        };
        Self { phone, address, network, keys }
    }

    /// The address of the caller.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The phone.
    pub fn phone(&self) -> &Phone {
        &self.phone
    }

    /// Sends a code to the phone. Returns when it ends, in ms since the UNIX epoch.
    pub async fn send_code(&self, app: &App) -> Result<i64, Error> {
        let Some(sender) = &app.sms else {
            warn!("login codes cannot be sent: set backend.sms_url and backend.sms_secret");
            return Err(Error::unavailable(NO_SENDER, "backend.sms_url is not set"));
        };
        let config = &app.store.config;
        let of_address = format!("login_codes_from:{}", self.address);
        within(
            app,
            &of_address,
            HOUR,
            config.codes_per_address_hour,
            "address: want at most {} codes in an hour",
        )
        .await?;
        self.take_of_minute(app).await?;
        let is_familiar = self.is_familiar(app).await?;
        let share = config.codes_per_phone_day.div_ceil(2);
        let own = Window::now(app, &self.keys.own_sends, DAY);
        let strangers = Window::now(app, &self.keys.sends_of_strangers, DAY);
        own.refuse_from(app, share, "phone: want at most {} codes in a day from one address").await?;
        if !is_familiar {
            strangers
                .refuse_from(app, config.codes_per_phone_day, "phone: want at most {} codes in a day")
                .await?;
        }
        if app.store.cache.count(&self.keys.sends, CODE_TIME).await? > 1 {
            let left_ms = self
                .code(app)
                .await?
                .map_or(CODE_TIME.as_millis() as i64, |code| code.ends_ms - app.store.clock.now_ms());
            let message = "phone: a code was sent within this minute; use it, or wait";
            return Err(Error::too_many(message).retry_after_ms(left_ms));
        }
        let code = Code {
            digits: format!("{:06}", random::below(1_000_000)),
            ends_ms: app.store.clock.now_ms() + CODE_TIME.as_millis() as i64,
            asker: self.address.clone(),
        };
        app.store.cache.set(&self.keys.code, &code.text(), CODE_TIME).await?;
        let sent = sender.send_code(&self.phone, &code.digits, code.ends_ms, app.store.clock.now_ms()).await;
        if let Err(error) = sent {
            // A code that did not reach the phone does not count against it.
            app.store.cache.delete_many(&[self.keys.code.clone(), self.keys.sends.clone()]).await?;
            return Err(error);
        }
        own.count(app).await?;
        if !is_familiar {
            strangers.count(app).await?;
        }
        Ok(code.ends_ms)
    }

    /// Counts a code against this minute's codes for all. A network that has over [`FREE_PARTS`] times what
    /// is left of them gets no more, so `n` networks that take all they can leave one part in `4 n + 1` to
    /// others, as in `shard::Shares`.
    async fn take_of_minute(&self, app: &App) -> Result<(), Error> {
        let most = app.store.config.codes_per_minute;
        let own = Window::now(app, &format!("login_codes_of:{}", self.network), MINUTE);
        let all = Window::now(app, "login_codes", MINUTE);
        let left = (i64::from(most) - all.counted(app).await?).max(0);
        if own.counted(app).await? > left.saturating_mul(FREE_PARTS) {
            return Err(own.refusal(
                app,
                most,
                "network: it has its share of the {} codes in a minute for all",
            ));
        }
        own.count(app).await?;
        match all.count(app).await? <= i64::from(most) {
            true => Ok(()),
            false => Err(all.refusal(app, most, "want at most {} codes in a minute, for all")),
        }
    }

    /// Returns the code that the phone was sent, if it is `digits`.
    pub async fn check(&self, app: &App, digits: &str) -> Result<Code, Error> {
        let config = &app.store.config;
        let of_address = format!("login_tries_from:{}", self.address);
        let most = config.login_tries_per_address_minute;
        within(app, &of_address, MINUTE, most, "address: want at most {} logins in a minute").await?;
        let most = config.logins_per_minute;
        within(app, &self.keys.tries, MINUTE, most, "phone: want at most {} logins in a minute").await?;
        let until_ms = app.store.cache.get(&self.keys.waits).await?.and_then(|text| text.parse::<i64>().ok());
        let left_ms = until_ms.map_or(0, |until_ms| until_ms - app.store.clock.now_ms());
        if left_ms > 0 {
            return Err(Error::too_many("code: too many wrong codes; wait").retry_after_ms(left_ms));
        }
        match self.matching(app, digits).await? {
            Some(code) => Ok(code),
            None => {
                self.note_wrong_try(app).await?;
                Err(wrong_code())
            }
        }
    }

    async fn matching(&self, app: &App, digits: &str) -> Result<Option<Code>, Error> {
        let Some(code) = self.code(app).await? else { return Ok(None) };
        // Counted before it is compared, so that tries at once are no more than tries one by one.
        let of_code = format!("{}:tries:{}", self.keys.code, code.ends_ms);
        let own = app.store.cache.count(&format!("{of_code}:{}", self.address), CODE_TIME).await?;
        let is_strangers = code.asker != self.address && !self.is_familiar(app).await?;
        let strangers = if is_strangers { app.store.cache.count(&of_code, CODE_TIME).await? } else { 0 };
        let may_try = own <= TRIES_MAX && strangers <= STRANGERS_TRIES_MAX;
        Ok((may_try && are_same(digits.as_bytes(), code.digits.as_bytes())).then_some(code))
    }

    /// From the fifth wrong try in a day on, the wait before the next try doubles.
    async fn note_wrong_try(&self, app: &App) -> Result<(), Error> {
        let wrong = Window::now(app, &self.keys.wrong_tries, DAY).count(app).await?;
        let Ok(doublings) = u32::try_from(wrong - TRIES_MAX) else { return Ok(()) };
        let wait = (WAIT_FIRST * 2u32.saturating_pow(doublings.min(16))).min(WAIT_MAX);
        let until_ms = app.store.clock.now_ms() + wait.as_millis() as i64;
        app.store.cache.set(&self.keys.waits, &until_ms.to_string(), wait).await
    }

    /// Uses the code up, so that it makes one login only. Returns whether it was still there.
    pub async fn use_up(&self, app: &App, code: &Code) -> Result<bool, Error> {
        let is_ours = app.store.cache.take_if(&self.keys.code, &code.text()).await?;
        if is_ours {
            app.store.cache.set(&self.keys.familiar, "1", FAMILIAR_TIME).await?;
            app.store.cache.delete(&Window::now(app, &self.keys.wrong_tries, DAY).key).await?;
        }
        Ok(is_ours)
    }

    /// The code that waits for the phone.
    pub async fn code(&self, app: &App) -> Result<Option<Code>, Error> {
        let text = app.store.cache.get(&self.keys.code).await?;
        let code = text.as_deref().and_then(Code::parse);
        Ok(code.filter(|code| code.ends_ms > app.store.clock.now_ms()))
    }

    async fn is_familiar(&self, app: &App) -> Result<bool, Error> {
        Ok(app.store.cache.get(&self.keys.familiar).await?.is_some())
    }
}

impl Code {
    /// Its text in the cache.
    fn text(&self) -> String {
        format!("{} {} {}", self.digits, self.ends_ms, self.asker)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ').map(str::to_owned);
        let (digits, ends_ms, asker) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        Some(Self { digits, ends_ms, asker })
    }
}

/// The same for every reason: it tells a guesser nothing.
pub fn wrong_code() -> Error {
    let message = "code: it is wrong, used, older than a minute, or was tried too often; ask for another";
    Error::new(axum::http::StatusCode::UNAUTHORIZED, "wrong_code", message)
}

/// Counts one more under a name, and refuses more than `most` in this window.
async fn within(app: &App, name: &str, length: Duration, most: u32, refusal: &str) -> Result<(), Error> {
    let window = Window::now(app, name, length);
    match window.count(app).await? <= i64::from(most) {
        true => Ok(()),
        false => Err(window.refusal(app, most, refusal)),
    }
}

/// A minute, an hour or a day by the clock, in which something is counted.
struct Window {
    key: String,
    length: Duration,
    ends_ms: i64,
}

impl Window {
    fn now(app: &App, name: &str, length: Duration) -> Self {
        let length_ms = length.as_millis() as i64;
        let number = app.store.clock.now_ms() / length_ms;
        Self { key: format!("{name}:{number}"), length, ends_ms: (number + 1) * length_ms }
    }

    async fn count(&self, app: &App) -> Result<i64, Error> {
        app.store.cache.count(&self.key, self.length).await
    }

    /// How many have been counted.
    async fn counted(&self, app: &App) -> Result<i64, Error> {
        Ok(app.store.cache.get(&self.key).await?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Refuses, without counting, once `most` have been counted.
    async fn refuse_from(&self, app: &App, most: u32, refusal: &str) -> Result<(), Error> {
        match self.counted(app).await? < i64::from(most) {
            true => Ok(()),
            false => Err(self.refusal(app, most, refusal)),
        }
    }

    fn refusal(&self, app: &App, most: u32, refusal: &str) -> Error {
        let message = refusal.replace("{}", &most.to_string());
        Error::too_many(message).retry_after_ms(self.ends_ms - app.store.clock.now_ms())
    }
}

/// A network may have this many times what is left of a minute's codes and still get more.
const FREE_PARTS: i64 = 4;
/// How long a code is good, and how long a phone waits for the next one.
const CODE_TIME: Duration = Duration::from_secs(60);
/// How often one code may be tried from one address, and how many wrong tries a day come without a wait.
const TRIES_MAX: i64 = 5;
/// How often one code may be tried from all addresses that are neither familiar nor requested it.
const STRANGERS_TRIES_MAX: i64 = 50;
const WAIT_FIRST: Duration = Duration::from_secs(15);
const WAIT_MAX: Duration = HOUR;
/// How long after a login its address is familiar.
const FAMILIAR_TIME: Duration = Duration::from_secs(30 * 86_400);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
