//! What one fleet counted and measured, and the sum over fleets.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// What should have arrived and did not, apart from what [`Tally::rooms`] adds.
    pub lost: u64,
    /// Messages that arrived once more under another server id.
    pub duplicated: u64,
    /// Messages that came after a later one of the same stream.
    pub out_of_order: u64,
    /// Messages that arrived once more and that a client knows to drop: under the same server id, or after it reconnected.
    pub redelivered: u64,
    /// Messages whose sender was told that they failed, by reason.
    pub rejected: BTreeMap<String, u64>,
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
    /// From the intended time to the write.
    pub lag: Samples,
    /// From the intended time to the send-ack.
    pub send_ack: Samples,
    /// From the connect to the answered login.
    pub login: Samples,
    /// From the reset of all to the answered login.
    pub reconnect: Samples,
    /// When the last client became ready, in ns since the UNIX epoch.
    pub ready_at_ns: u64,
    /// When the last client was back after the reset of all.
    pub back_at_ns: u64,
    /// The rooms of this fleet's clients.
    pub rooms: Vec<RoomTally>,
}

/// What one fleet's members saw of a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RoomTally {
    /// The room, as counted from the first one.
    pub room: u32,
    /// Members in this fleet.
    pub members: u64,
    /// The sum over members of the sequence after the last that came.
    pub next_sum: u64,
    /// The last sequence that any of them knows of.
    pub last: u64,
    /// Messages sent that were neither answered nor seen: lost for every member of the run.
    pub unseen: u64,
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
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.stray += other.stray;
        self.passed_by += other.passed_by;
        self.measured += other.measured;
        merge_counts(&mut self.rejected, &other.rejected);
        merge_counts(&mut self.disconnected, &other.disconnected);
        merge_counts(&mut self.notices, &other.notices);
        merge_counts(&mut self.connect_errors, &other.connect_errors);
        self.latency.merge(&other.latency);
        self.lag.merge(&other.lag);
        self.send_ack.merge(&other.send_ack);
        self.login.merge(&other.login);
        self.reconnect.merge(&other.reconnect);
        self.ready_at_ns = self.ready_at_ns.max(other.ready_at_ns);
        self.back_at_ns = self.back_at_ns.max(other.back_at_ns);
        for room in &other.rooms {
            match self.rooms.binary_search_by_key(&room.room, |known| known.room) {
                Ok(at) => self.rooms[at].merge(room),
                Err(at) => self.rooms.insert(at, *room),
            }
        }
    }

    /// Everything lost, of all fleets: to be asked when all are merged.
    pub fn lost_in_all(&self) -> u64 {
        self.lost + self.rooms.iter().map(RoomTally::lost_at_the_end).sum::<u64>()
    }

    /// Messages whose sender was told that they failed.
    pub fn rejected_in_all(&self) -> u64 {
        self.rejected.values().sum()
    }
}

impl RoomTally {
    fn merge(&mut self, other: &RoomTally) {
        self.members += other.members;
        self.next_sum += other.next_sum;
        self.last = self.last.max(other.last);
        self.unseen += other.unseen;
    }

    /// What members miss past the last message that they got; gaps before it are in [`Tally::lost`].
    fn lost_at_the_end(&self) -> u64 {
        let tails = (self.members * (self.last + 1)).saturating_sub(self.next_sum);
        tails + self.unseen * self.members
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

/// Durations in a histogram of 3 significant digits; as JSON, the pairs `[nanoseconds, count]` that are there.
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

    #[test]
    fn a_room_has_lost_what_its_members_did_not_get_of_what_any_fleet_knows() {
        let room = |members, next_sum, last, unseen| Tally {
            rooms: vec![RoomTally { room: 3, members, next_sum, last, unseen }],
            ..Tally::default()
        };
        // Two members have everything up to 10; of three others, one lacks 10 and one lacks 9 and 10.
        let mut tally = room(2, 22, 10, 0);
        tally.merge(&room(3, 11 + 10 + 9, 8, 0));
        assert_eq!(tally.lost_in_all(), 3);
        tally.merge(&room(0, 0, 0, 1));
        assert_eq!(tally.lost_in_all(), 3 + 5);
    }
}
