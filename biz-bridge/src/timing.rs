//! Waits.

use std::time::Instant;

/// Waits until `time`; for ever if it is `None`.
pub async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
