//! The login token, and when the next one is wanted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use shard::Instant;

/// The longest time before its end in which a token is renewed.
const LEAD_MAX: Duration = Duration::from_secs(60);

/// The token of the session, if there is one.
#[derive(Debug, Default)]
pub(super) struct Token {
    text: Option<String>,
    ends_at: Option<Instant>,
    /// When the provider is to be asked for the next one.
    pub renew_at: Option<Instant>,
    /// The provider was asked and has not answered.
    pub is_asked: bool,
}

impl Token {
    /// The token to log in with, unless its time is over.
    pub fn usable(&self, now: Instant) -> Option<&str> {
        self.text.as_deref().filter(|_| self.ends_at.is_none_or(|end| now < end))
    }

    /// The server does not take it.
    pub fn refuse(&mut self) {
        *self = Self { is_asked: self.is_asked, ..Self::default() };
    }

    /// Takes the provider's answer; false when it is the token that is there.
    pub fn take(&mut self, now: Instant, text: String) -> bool {
        if self.text.as_deref() == Some(&text) {
            self.renew_at = None;
            return false;
        }
        // A token that has ended by this clock may be good: the clock may be wrong.
        self.ends_at = end_of(&text).filter(|end| *end > now);
        self.renew_at = self.ends_at.map(|end| {
            let left = end.since(now);
            now + (left - (left / 4).min(LEAD_MAX))
        });
        self.text = Some(text);
        true
    }
}

/// The claim `exp` of a JSON Web Token, whose signature is the server's to check.
fn end_of(token: &str) -> Option<Instant> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let secs = claims["exp"].as_u64()?;
    Some(Instant::from_unix_nanos(secs.saturating_mul(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Instant {
        Instant::from_unix_nanos(secs * 1_000_000_000)
    }

    fn token(exp: u64) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
    }

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let mut held = Token::default();
        assert_eq!(held.usable(at(0)), None);
        assert!(held.take(at(1_000), token(1_040)));
        assert_eq!((held.renew_at, held.ends_at), (Some(at(1_030)), Some(at(1_040))));
        assert!(held.usable(at(1_039)).is_some() && held.usable(at(1_040)).is_none());
        assert!(!held.take(at(1_030), token(1_040)), "the same one is no news");
        assert_eq!(held.renew_at, None);
        assert!(held.take(at(1_030), token(4_630)));
        assert_eq!(held.renew_at, Some(at(4_570)), "a minute is enough");
    }

    #[test]
    fn a_token_without_an_end_is_used_until_it_is_refused() {
        for text in ["", "a.b.c", "e30.e30.x", &token(5)] {
            let mut held = Token::default();
            assert!(held.take(at(1_000), text.to_owned()));
            assert_eq!((held.usable(at(9_999)), held.renew_at), (Some(text), None));
            held.refuse();
            assert_eq!(held.usable(at(9_999)), None);
        }
    }
}
