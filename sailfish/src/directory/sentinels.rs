//! The master of the directory's Redis, as its sentinels report it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use redis::{ConnectionInfo, RedisResult, cmd};
use trust::Roots;

use crate::redis_urls::SentinelUrls;

/// The sentinels of one master.
#[derive(Clone)]
pub struct Sentinels(SentinelUrls);

impl Sentinels {
    /// Asks sentinels at these URLs.
    pub fn new(urls: SentinelUrls) -> Self {
        Self(urls)
    }

    /// The servers that the sentinels name, that of the latest failover first. Each sentinel has `timeout` to
    /// answer; one that does not, or knows no such name, is skipped.
    pub fn ask(&self, roots: &Roots, timeout: Duration) -> Vec<(String, u16)> {
        let told =
            self.0.servers.iter().filter_map(|server| self.told_by(server, roots, timeout).ok().flatten());
        let mut told: Vec<(u64, (String, u16))> = told.collect();
        told.sort_by_key(|(epoch, _)| Reverse(*epoch));
        let mut masters: Vec<(String, u16)> = told.into_iter().map(|(_, master)| master).collect();
        masters.dedup();
        masters
    }

    fn told_by(
        &self,
        server: &ConnectionInfo,
        roots: &Roots,
        timeout: Duration,
    ) -> RedisResult<Option<(u64, (String, u16))>> {
        // Without the crate's own greeting a frozen sentinel costs one time-out.
        let settings = server.redis_settings().clone().set_skip_set_lib_name();
        let client = roots.redis_client(server.clone().set_redis_settings(settings))?;
        let mut connection = client.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        let mut ask = cmd("SENTINEL");
        let master: Option<(String, u16)> =
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.0.name).query(&mut connection)?;
        let Some(master) = master else { return Ok(None) };
        let mut ask = cmd("SENTINEL");
        let fields: BTreeMap<String, String> = ask.arg("MASTER").arg(&self.0.name).query(&mut connection)?;
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(Some((epoch, master)))
    }
}
