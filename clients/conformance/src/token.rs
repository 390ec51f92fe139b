//! Login tokens whose `exp` is true and whose signature is not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A token that ends `ttl` from now, rounded up to a whole second. `name` makes it differ from others.
pub fn token(name: &str, ttl: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = (now + ttl).as_millis().div_ceil(1000);
    let claims = format!(r#"{{"app":1,"user":10001,"device":"phone","exp":{exp},"jti":"{name}"}}"#);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims), part("no signature"))
}

/// A token that outlasts any scenario.
pub fn long_token(name: &str) -> String {
    token(name, Duration::from_secs(3_600))
}
