//! URLs of servers, and their settings for TLS.

use redis::{ConnectionAddr, IntoConnectionInfo};
use trust::Roots;

/// Completes the URL of a MySQL server with settings for TLS. Otherwise sqlx would accept any server.
///
/// # Errors
/// It wants TLS without a check of the server's identity.
pub fn with_tls(url: &str, roots: &Roots) -> Result<String, String> {
    let parameters = || url.split_once('?').map_or("", |(_, query)| query).split('&');
    let value = |names: [&str; 2]| {
        let mut pairs = parameters().filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| value.to_ascii_uppercase())
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    match value(["ssl-mode", "sslmode"]).as_deref() {
        None => Ok(format!("{url}{separator}ssl-mode=DISABLED")),
        Some("DISABLED") => Ok(url.to_owned()),
        Some("VERIFY_IDENTITY" | "VERIFY_CA") => match roots.file() {
            Some(file) if value(["ssl-ca", "sslca"]).is_none() => {
                let bytes = file.as_os_str().as_encoded_bytes().iter();
                let path: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
                Ok(format!("{url}{separator}ssl-ca={path}"))
            }
            _ => Ok(url.to_owned()),
        },
        Some(_) => Err("ssl-mode: want VERIFY_IDENTITY, VERIFY_CA or DISABLED".into()),
    }
}

/// Whether a URL names a server. A suffix could switch the check of certificates off.
pub fn is_redis(url: &str) -> bool {
    let is_known = url.starts_with("redis://") || url.starts_with("rediss://");
    is_known
        && url
            .into_connection_info()
            .is_ok_and(|server| !matches!(server.addr(), ConnectionAddr::TcpTls { insecure: true, .. }))
}

#[cfg(test)]
mod tests {
    use sqlx::any::AnyConnectOptions;

    use super::*;

    #[test]
    fn a_database_is_spoken_with_by_tls_only_if_it_is_known_who_it_is() {
        let ca = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/pem/ca.pem"));
        let (system, own) = (Roots::default(), Roots::read(ca).unwrap());
        let plain = "mysql://u:p@db.example:3306/name";
        assert_eq!(with_tls(plain, &own), Ok(format!("{plain}?ssl-mode=DISABLED")));
        assert_eq!(with_tls(&format!("{plain}?x=1"), &own), Ok(format!("{plain}?x=1&ssl-mode=DISABLED")));
        let tls = format!("{plain}?ssl-mode=VERIFY_IDENTITY");
        assert_eq!(with_tls(&tls, &system), Ok(tls.clone()));
        let given = with_tls(&tls, &own).unwrap();
        assert!(given.starts_with(&format!("{tls}&ssl-ca=%2F")) && !given.contains(' '), "{given}");
        let options: AnyConnectOptions = given.parse().unwrap();
        assert!(options.database_url.as_str().contains("ssl-ca="));
        let own_file = format!("{tls}&ssl-ca=/a.pem");
        assert_eq!(with_tls(&own_file, &own), Ok(own_file.clone()));
        for wrong in ["REQUIRED", "preferred", "1", ""] {
            let said = with_tls(&format!("{plain}?ssl-mode={wrong}"), &own).unwrap_err();
            assert_eq!(said, "ssl-mode: want VERIFY_IDENTITY, VERIFY_CA or DISABLED", "{wrong}");
        }
    }
}
