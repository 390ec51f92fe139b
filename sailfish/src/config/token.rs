//! The settings for checking login tokens.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::{hidden, within};

/// The most audiences or issuers.
const NAMES_MAX: usize = 16;

/// What login tokens are checked with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// The HS256 secret itself; empty for none.
    pub secret: String,
    /// A file with the HS256 secret; empty for the one that the first run makes.
    pub secret_file: PathBuf,
    /// An Ed25519 public key, 64 hexadecimal digits; empty for none.
    pub ed25519_public_key: String,
    /// A file with a JSON Web Key Set; empty for none.
    pub jwks_file: PathBuf,
    /// The URL of one; empty for none.
    pub jwks_url: String,
    /// How often it is fetched.
    pub jwks_refresh_s: u32,
    /// The audiences that a token may have; empty: any.
    pub audiences: Vec<String>,
    /// The issuers that a token may have; empty: any.
    pub issuers: Vec<String>,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            secret: String::new(),
            secret_file: PathBuf::new(),
            ed25519_public_key: String::new(),
            jwks_file: PathBuf::new(),
            jwks_url: String::new(),
            jwks_refresh_s: 300,
            audiences: Vec::new(),
            issuers: Vec::new(),
        }
    }
}

impl fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenConfig")
            .field("secret", &hidden(&self.secret))
            .field("secret_file", &self.secret_file)
            .field("ed25519_public_key", &self.ed25519_public_key)
            .field("jwks_file", &self.jwks_file)
            .field("jwks_url", &self.jwks_url)
            .field("jwks_refresh_s", &self.jwks_refresh_s)
            .field("audiences", &self.audiences)
            .field("issuers", &self.issuers)
            .finish()
    }
}

/// Whether it is a URL whose server is authenticated.
fn is_fetchable(url: &str) -> bool {
    let Some(uri) = url.parse::<Uri>().ok() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    !host.is_empty()
        && !has_user
        && match uri.scheme_str() {
            Some("https") => true,
            Some("http") => is_loopback,
            _ => false,
        }
}

impl TokenConfig {
    /// Whether an HS256 secret is configured: one that the first run makes is not.
    pub fn has_secret(&self) -> bool {
        !self.secret.is_empty() || !self.secret_file.as_os_str().is_empty()
    }

    /// Whether keys come from a JSON Web Key Set.
    pub fn has_jwks(&self) -> bool {
        !self.jwks_url.is_empty() || !self.jwks_file.as_os_str().is_empty()
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let key = &self.ed25519_public_key;
        if !key.is_empty() && ed25519_public_key(key).is_none() {
            return Err("token.ed25519_public_key: want the 64 hexadecimal digits of a public key".into());
        }
        if !self.secret.is_empty() && !self.secret_file.as_os_str().is_empty() {
            return Err("token.secret_file: token.secret is set too; want only one of them".into());
        }
        if !self.jwks_url.is_empty() && !self.jwks_file.as_os_str().is_empty() {
            return Err("token.jwks_file: token.jwks_url is set too; want only one of them".into());
        }
        if !self.jwks_url.is_empty() && !is_fetchable(&self.jwks_url) {
            let url = &self.jwks_url;
            return Err(format!(
                "token.jwks_url = {url:?}: want https://HOST/PATH, or http:// of a loopback address: keys that \
                 came in clear could be anybody's"
            ));
        }
        within("token.jwks_refresh_s", self.jwks_refresh_s, 5, 86_400)?;
        for (key, names) in [("token.audiences", &self.audiences), ("token.issuers", &self.issuers)] {
            if names.len() > NAMES_MAX || names.iter().any(String::is_empty) {
                return Err(format!("{key}: want at most {NAMES_MAX} texts, none of them empty"));
            }
        }
        Ok(())
    }
}

/// 64 hexadecimal digits as bytes.
pub fn ed25519_public_key(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_from_who_is_known() {
        for good in
            ["https://login.example/keys", "http://127.0.0.1:80/", "http://[::1]/k", "http://localhost:8080"]
        {
            assert!(is_fetchable(good), "{good}");
        }
        for bad in
            ["http://login.example/keys", "https://", "https://u:p@login.example/", "ftp://a", "/keys", "a b"]
        {
            assert!(!is_fetchable(bad), "{bad}");
        }
    }
}
