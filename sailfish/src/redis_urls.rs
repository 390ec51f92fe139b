//! The URLs by which a configuration names Redis servers. Errors do not show them, as they may hold
//! passwords.

use std::io;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult};

/// Sentinels, and what they call the master.
#[derive(Clone)]
pub struct SentinelUrls {
    /// Where they are.
    pub servers: Vec<ConnectionInfo>,
    /// The name of the master.
    pub name: String,
}

/// The servers that `directory.redis` names.
///
/// # Errors
/// What it wants.
pub fn seeds(urls: &str) -> Result<Vec<ConnectionInfo>, String> {
    let seed = |url: &str| {
        let is_known = url.starts_with("redis://") || url.starts_with("rediss://");
        let info = is_known.then(|| url.into_connection_info().ok()).flatten();
        info.filter(|info| address(info).is_ok())
    };
    let seeds: Option<Vec<ConnectionInfo>> = urls.split(',').map(|url| seed(url.trim())).collect();
    let seeds = seeds.ok_or(
        "want redis://HOST:PORT, redis://USER:PASSWORD@HOST:PORT/DB, the same with rediss, or several of a Cluster with commas",
    )?;
    if seeds.iter().any(|seed| is_tls(seed) != is_tls(&seeds[0])) {
        return Err("want either redis or rediss for all servers".into());
    }
    if seeds.len() > 1 && seeds.iter().any(|seed| seed.redis_settings().db() != 0) {
        return Err("a Cluster has database 0 only; want its servers without /DB".into());
    }
    Ok(seeds)
}

/// The sentinels that `directory.redis_sentinels` names, if it names any; the host of the only URL of
/// `directory.redis` is the name that they have for the master.
///
/// # Errors
/// What they want.
pub fn sentinels(urls: &str, sentinels: &[String]) -> Result<Option<SentinelUrls>, String> {
    if sentinels.is_empty() {
        return Ok(None);
    }
    let seeds = seeds(urls)?;
    let [only] = seeds.as_slice() else {
        return Err("want one name of a master in directory.redis, like redis://mymaster".into());
    };
    let (name, _) = address(only).map_err(|error| error.to_string())?;
    let server = |url: &String| {
        let is_known = url.starts_with("redis://") || url.starts_with("rediss://");
        is_known.then(|| url.as_str().into_connection_info().ok()).flatten()
    };
    let servers: Option<Vec<ConnectionInfo>> = sentinels.iter().map(server).collect();
    let servers = servers.ok_or("want redis://HOST:26379 of each, perhaps with USER:PASSWORD@, or rediss")?;
    Ok(Some(SentinelUrls { servers, name }))
}

/// The host and the port of a server.
pub fn address(info: &ConnectionInfo) -> RedisResult<(String, u16)> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port)
        | ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None } => {
            Ok((host.clone(), *port))
        }
        _ => Err(io::Error::other("only redis://HOST:PORT and rediss://HOST:PORT are supported").into()),
    }
}

/// Whether a server is reached by TLS.
pub fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}
