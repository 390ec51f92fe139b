//! `sailfish token`: prints a login token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::{Claims, MoreClaims, mint_hs256_with};
use wire::{AppId, DeviceClass, UserId};

use crate::cli::ConfigArgs;
use crate::config::ConfigError;
use crate::secret::Secret;

/// Prints an IM token for a client, signed with the secret that `sailfish up` uses.
#[derive(clap::Args)]
pub struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The app of the user.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    app: i32,
    /// The user.
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    user: i64,
    /// phone, tablet, web, desktop, tv or bot.
    #[arg(long, default_value = "phone", value_parser = device)]
    device: DeviceClass,
    /// How long the token is valid: 90s, 15m, 1h or 30d.
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
}

/// Runs `sailfish token`.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let secret = Secret::find(&config.token)?;
    let token = mint(&secret, AppId(args.app), UserId(args.user), args.device, args.ttl);
    crate::cli::print(&format!("{token}\n"));
    Ok(())
}

/// A token that is valid for `ttl` from here on. It has an `iat`, because revocations count a token without
/// one as older than all.
pub fn mint(secret: &Secret, app: AppId, user: UserId, device: DeviceClass, ttl: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = now.as_secs().saturating_add(ttl.as_secs());
    let more = MoreClaims { iat: Some(now.as_secs()), ..MoreClaims::default() };
    mint_hs256_with(&secret.bytes, &Claims { app, user, device, exp }, &more)
}

/// Checks that a token from `source` is of this user: the gateway logs in the user of the token. The gateway
/// checks its signature.
pub fn is_of(token: &str, user: UserId, source: &str) -> Result<(), ConfigError> {
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<serde_json::Value>(&claims).ok());
    match claims.and_then(|claims| claims["user"].as_i64()) {
        Some(of) if of == user.0 => Ok(()),
        Some(of) => Err(ConfigError(format!("{source}: it is user {of}'s, and --user is {}", user.0))),
        None => Err(ConfigError(format!(
            "{source}: want one as `sailfish token` prints it or the backend's POST /im/token answers; the token \
             of POST /login is for HTTP"
        ))),
    }
}

/// Parses a class of device.
pub fn device(name: &str) -> Result<DeviceClass, String> {
    DeviceClass::parse(name).ok_or_else(|| "want phone, tablet, web, desktop, tv or bot".into())
}

/// Parses a duration like `90s`, `15m`, `1h` or `30d`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit_secs = match &text[number.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("want a number with s, m, h or d, like 1h".into()),
    };
    let count: u64 = number.parse().map_err(|_| "want a number with s, m, h or d, like 1h".to_owned())?;
    Ok(Duration::from_secs(count.saturating_mul(unit_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A revocation of tokens that were made before now does not refuse one that is made in the same second.
    #[test]
    fn a_token_says_when_it_was_made() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let secret = Secret { bytes: b"the secret of the test".to_vec(), file: None };
        let token = mint(&secret, AppId(1), UserId(5), DeviceClass::Phone, Duration::from_secs(60));
        let verified = gateway::TokenKeys::hs256(&secret.bytes).verify(&token, before).unwrap();
        assert!(verified.issued_secs >= before, "{verified:?}");
    }

    #[test]
    fn durations_have_units() {
        let seconds = |text| duration(text).map(|span| span.as_secs());
        assert_eq!(["90", "90s", "15m", "1h", "30d"].map(seconds), [90, 90, 900, 3600, 2_592_000].map(Ok));
        assert!(["", "h", "1w", "-1h", "1.5h"].into_iter().all(|text| duration(text).is_err()));
    }
}
