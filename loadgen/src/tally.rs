//! What one fleet counted and measured, and the sum over fleets.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::client::FailReason;

/// Significant decimal digits of a sample.
const DIGITS: u8 = 3;
/// Longer times count as this.
const SAMPLE_NS_MAX: u64 = 3_600_000_000_000;

/// What one fleet counted and measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Clients that have been ready at some time.
    pub connected: u64,
    /// Clients that are not ready at the end.
    pub failed: u64,
    /// Operations sent: messages, heartbeats or logins.
    pub sent: u64,
    /// Of these, those the server answered with success: a send-ack, a heartbeat, a login.
    pub accepted: u64,
    /// Operations that arrived: messages at a receiver (each once), answered heartbeats, logins.
    pub delivered: u64,
    /// Send-acks that say the receiver has acked.
    pub acked: u64,
    /// What should have arrived and did not.
    pub lost: u64,
    /// Messages that arrived once more under another server id, though nobody had repeated them.
    pub duplicated: u64,
    /// Messages that came after a later one of the same stream.
    pub out_of_order: u64,
    /// Messages that arrived once more and that a client knows to drop: under the same server id, after it
    /// reconnected, or because their sender had repeated them.
    pub redelivered: u64,
    /// Of these, those whose sender's repeat got a server id of its own: the server had forgotten them.
    pub renewed: u64,
    /// Messages sent once more by their senders.
    pub repeats: u64,
    /// Times that a server was too busy for a message, which was sent again.
    pub busy: u64,
    /// Messages whose sender was told that they failed, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Gifts whose sender was told that they failed, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Messages that got no send-ack.
    pub unanswered: u64,
    /// Operations that could not be sent: the client was not connected, or its connection took no more.
    pub unsent: u64,
    /// Deliveries that belong to no message of this run as it was sent.
    pub stray: u64,
    /// Room messages that passed while a member was away, and were not promised to it.
    pub passed_by: u64,
    /// Connections that ended and should not have, by the last notice or by how they ended.
    pub disconnected: BTreeMap<String, u64>,
    /// Notices that came, by name.
    pub notices: BTreeMap<String, u64>,
    /// Connects that failed, by error.
    pub connect_errors: BTreeMap<String, u64>,
    /// Operations that arrived within the measured time.
    pub measured: u64,
    /// From the intended time to the arrival.
    pub latency: Samples,
    /// The same for each part of the measured time, if it is split.
    pub parts: Vec<Samples>,
    /// From the intended time to the write.
    pub lag: Samples,
    /// From the intended time to the send-ack.
    pub send_ack: Samples,
    /// From the connect to the answered login.
    pub login: Samples,
    /// From the end of a connection to the answered login, and join.
    pub reconnect: Samples,
    /// When the last client became ready, in ns since the UNIX epoch.
    pub ready_at_ns: u64,
    /// When the last client was back after the reset of all.
    pub back_at_ns: u64,
    /// Clients that are ready at the end, by target.
    pub on_targets: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds what another fleet of the run counted.
    pub fn merge(&mut self, other: &Tally) {
        self.connected += other.connected;
        self.failed += other.failed;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.acked += other.acked;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.redelivered += other.redelivered;
        self.renewed += other.renewed;
        self.repeats += other.repeats;
        self.busy += other.busy;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.stray += other.stray;
        self.passed_by += other.passed_by;
        self.measured += other.measured;
        merge_counts(&mut self.rejected, &other.rejected);
        merge_counts(&mut self.refused, &other.refused);
        merge_counts(&mut self.disconnected, &other.disconnected);
        merge_counts(&mut self.notices, &other.notices);
        merge_counts(&mut self.connect_errors, &other.connect_errors);
        self.latency.merge(&other.latency);
        self.parts.resize(self.parts.len().max(other.parts.len()), Samples::default());
        for (part, more) in self.parts.iter_mut().zip(&other.parts) {
            part.merge(more);
        }
        self.lag.merge(&other.lag);
        self.send_ack.merge(&other.send_ack);
        self.login.merge(&other.login);
        self.reconnect.merge(&other.reconnect);
        self.ready_at_ns = self.ready_at_ns.max(other.ready_at_ns);
        self.back_at_ns = self.back_at_ns.max(other.back_at_ns);
        merge_counts(&mut self.on_targets, &other.on_targets);
    }

    /// Messages that failed because their receiver was away or did not ack.
    pub fn handed_over(&self) -> u64 {
        let reasons = [FailReason::Offline, FailReason::Disconnected, FailReason::Unacked];
        reasons.iter().filter_map(|reason| self.rejected.get(reason.name())).sum()
    }
}

/// Adds one to a named count.
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

fn merge_counts(counts: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (name, more) in other {
        *counts.entry(name.clone()).or_default() += more;
    }
}

/// Durations in a histogram of 3 significant digits; as JSON, the pairs `[nanoseconds, count]` that are
/// there.
#[derive(Clone, Debug)]
pub struct Samples(Histogram<u64>);

impl Default for Samples {
    fn default() -> Self {
        // Grows with what is recorded: most fleets use few of their histograms.
        Self(Histogram::new(DIGITS).expect("3 is a number of digits it can do"))
    }
}

impl Samples {
    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(SAMPLE_NS_MAX);
        self.0.record(nanos).expect("it grows up to the longest sample");
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that the share `quantile` of the samples does not pass, in us.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        if self.is_empty() { 0.0 } else { us(self.0.value_at_quantile(quantile)) }
    }

    /// The longest, in us.
    pub fn max_us(&self) -> f64 {
        us(self.0.max())
    }

    /// The shortest, in us.
    pub fn min_us(&self) -> f64 {
        us(self.0.min())
    }

    fn merge(&mut self, other: &Samples) {
        self.0.add(&other.0).expect("it grows up to the longest sample");
    }
}

/// Nanoseconds as microseconds with one decimal.
fn us(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        serializer.collect_seq(pairs)
    }
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut samples = Samples::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            samples.0.record_n(value, count).map_err(serde::de::Error::custom)?;
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_the_pipe_and_add_up() {
        let mut samples = Samples::default();
        for us in 1..=10_000 {
            samples.record(Duration::from_micros(us));
        }
        let json = serde_json::to_string(&samples).unwrap();
        let mut read: Samples = serde_json::from_str(&json).unwrap();
        for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(read.quantile_us(quantile), samples.quantile_us(quantile));
        }
        read.merge(&samples);
        assert_eq!(read.len(), 20_000);
        assert!((read.quantile_us(0.5) - 5000.0).abs() < 5.0);
        assert_eq!(Samples::default().quantile_us(0.5), 0.0);
    }
}
