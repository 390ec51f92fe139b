//! The counters. [`page`] writes the page of `/metrics`.

pub mod page;
mod text;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use text::Text;

/// Upper bounds of the latency buckets, in ms.
const BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 30_000];

/// Counts since the start of the process.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Route, Requests>>,
    /// By the names of their families.
    counters: Mutex<BTreeMap<&'static str, Counters>>,
}

/// A family, and its counts by the label's value.
type Counters = (&'static Family, BTreeMap<&'static str, u64>);

/// Counters of one name, told apart by one label.
pub struct Family {
    /// With the prefix `sailfish_backend_`, ending in `_total`.
    pub name: &'static str,
    /// What it counts, as a sentence.
    pub help: &'static str,
    /// The label's name.
    pub label: &'static str,
}

/// A method, and a path with the names of its parameters.
type Route = (String, String);

#[derive(Default)]
struct Requests {
    by_status: BTreeMap<u16, u64>,
    /// The last bucket has the requests above all bounds.
    buckets: [u64; BUCKETS_MS.len() + 1],
    sum: Duration,
}

impl Metrics {
    /// Adds to a counter.
    pub fn add(&self, family: &'static Family, value: &'static str, by: u64) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, values) = counters.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
        *values.entry(value).or_default() += by;
    }

    /// Counts a request that was answered.
    pub fn request(&self, method: &str, path: &str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = requests.entry((method.to_owned(), path.to_owned())).or_default();
        *requests.by_status.entry(status).or_default() += 1;
        let bucket = BUCKETS_MS.partition_point(|bound_ms| Duration::from_millis(*bound_ms) < took);
        requests.buckets[bucket] += 1;
        requests.sum += took;
    }

    fn write_requests(&self, page: &mut Text) {
        let all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        page.family("requests_total", "counter", "Requests that were answered.");
        for ((method, path), requests) in &*all {
            for (status, count) in &requests.by_status {
                let status = status.to_string();
                page.sample(&[("method", method), ("path", path), ("status", &status)], count);
            }
        }
        page.family("request_seconds", "histogram", "Duration of requests.");
        for ((method, path), requests) in &*all {
            let labels = [("method", method.as_str()), ("path", path.as_str())];
            let mut below = 0;
            for (count, bound_ms) in requests.buckets.iter().zip(BUCKETS_MS) {
                below += count;
                page.bucket(&labels, &(bound_ms as f64 / 1_000.0).to_string(), below);
            }
            let all = below + requests.buckets[BUCKETS_MS.len()];
            page.bucket(&labels, "+Inf", all);
            page.end_of_histogram(&labels, requests.sum.as_secs_f64(), all);
        }
    }

    fn write_counters(&self, page: &mut Text) {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (family, values) in counters.values() {
            page.family(family.name.trim_start_matches(PREFIX), "counter", family.help);
            for (value, count) in values {
                page.sample(&[(family.label, value)], count);
            }
        }
    }
}

const PREFIX: &str = "sailfish_backend_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_to_theirs() {
        let metrics = Metrics::default();
        for ms in [0, 1, 3, 40_000] {
            metrics.request("GET", "/a", 200, Duration::from_millis(ms));
        }
        let mut page = Text::default();
        metrics.write_requests(&mut page);
        let text = page.into_text();
        for line in [
            "sailfish_backend_requests_total{method=\"GET\",path=\"/a\",status=\"200\"} 4",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"0.001\"} 2",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"0.005\"} 3",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"30\"} 3",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"+Inf\"} 4",
            "sailfish_backend_request_seconds_count{method=\"GET\",path=\"/a\"} 4",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}
