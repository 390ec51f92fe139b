//! A node that is asked again and again: its last readings, and the rates that follow from them.

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::{Counter, Gauge, Latency, Reading};

/// How many readings are kept.
const READINGS_MAX: usize = 61;
/// Over how many readings latencies are summed.
const LATENCY_READINGS: usize = 10;

/// A node's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub reading: Reading,
    /// What the node refused to report, and why.
    pub remark: Option<String>,
}

/// A node at an admin port.
pub struct Watched {
    /// `HOST:PORT`.
    pub admin: String,
    /// When each was taken, since the start. All are of the same process.
    readings: VecDeque<(Duration, Reading)>,
    /// Since when it does not answer, and why.
    silence: Option<(Duration, String)>,
    remark: Option<String>,
}

impl Watched {
    /// A node that has not been asked.
    pub const fn new(admin: String) -> Self {
        Self { admin, readings: VecDeque::new(), silence: None, remark: None }
    }

    /// Takes the result of asking it at `now`: an answer, or why there is none.
    pub fn take(&mut self, now: Duration, outcome: Result<Answer, String>) {
        match outcome {
            Ok(Answer { reading, remark }) => {
                self.silence = None;
                self.remark = remark;
                if self.last().is_some_and(|last| reading.is_restarted(last)) {
                    self.readings.clear();
                }
                self.readings.push_back((now, reading));
                if self.readings.len() > READINGS_MAX {
                    self.readings.pop_front();
                }
            }
            Err(why) => {
                let since = self.silence.take().map_or(now, |(since, _)| since);
                self.silence = Some((since, why));
            }
        }
    }

    /// Its last report, however old.
    pub fn last(&self) -> Option<&Reading> {
        self.readings.back().map(|(_, reading)| reading)
    }

    /// Its report of just now.
    pub fn current(&self) -> Option<&Reading> {
        self.last().filter(|_| self.silence.is_none())
    }

    /// Since when it does not answer, and why.
    pub fn silence(&self) -> Option<(Duration, &str)> {
        self.silence.as_ref().map(|(since, why)| (*since, why.as_str()))
    }

    /// What it refused to report.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref().filter(|_| self.silence.is_none())
    }

    /// The value of a gauge.
    pub fn gauge(&self, gauge: Gauge) -> Option<f64> {
        self.current()?.gauge(gauge)
    }

    /// How much a counter grew in a second, between the last two readings.
    pub fn rate(&self, counter: Counter) -> Option<f64> {
        self.current()?;
        self.rates(counter, 1).pop().flatten()
    }

    /// The rates between the last `count` pairs of readings, the latest at the end; fewer if there are fewer.
    pub fn rates(&self, counter: Counter, count: usize) -> Vec<Option<f64>> {
        let first = self.readings.len().saturating_sub(count + 1);
        let pairs = self.readings.range(first..).zip(self.readings.range(first..).skip(1));
        let rate = |((from, before), (to, after)): (&(Duration, Reading), &(Duration, Reading))| {
            let seconds = to.saturating_sub(*from).as_secs_f64();
            let grown = after.counter(counter)? - before.counter(counter)?;
            (seconds > 0.0).then(|| grown / seconds)
        };
        pairs.map(rate).collect()
    }

    /// The times of the messages of the last readings, and how long that is. Empty before the second reading.
    pub fn latency(&self) -> (Latency, Duration) {
        let first = self.readings.len().saturating_sub(LATENCY_READINGS + 1);
        let pair = self.readings.get(first).zip(self.readings.back());
        let Some(((from, before), (to, after))) = pair.filter(|_| self.silence.is_none()) else {
            return Default::default();
        };
        let mut latency = after.latency.clone();
        for (stage, earlier) in latency.iter_mut().zip(&before.latency) {
            for (route, earlier) in stage.iter_mut().zip(earlier) {
                *route = route.since(earlier);
            }
        }
        (latency, to.saturating_sub(*from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(started: u64, messages: u64, slow: u64) -> Result<Answer, String> {
        let page = format!(
            "sailfish_frames_in_total{{code=\"business\"}} {messages}\n\
             sailfish_connections 5\nprocess_start_time_seconds {started}\n\
             sailfish_delivery_outcome_seconds_bucket{{route=\"user_reliable\",le=\"0.001\"}} {messages}\n\
             sailfish_delivery_outcome_seconds_bucket{{route=\"user_reliable\",le=\"1\"}} {all}\n\
             sailfish_delivery_outcome_seconds_bucket{{route=\"user_reliable\",le=\"+Inf\"}} {all}\n",
            all = messages + slow,
        );
        Ok(Answer { reading: Reading::of(&page, None).unwrap(), remark: None })
    }

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rates_are_those_of_the_time_that_passed() {
        let mut node = Watched::new("a:1".into());
        assert_eq!(node.rate(Counter::In), None);
        node.take(at(0), answer(1, 100, 0));
        assert_eq!((node.rate(Counter::In), node.gauge(Gauge::Connections)), (None, Some(5.0)));
        node.take(at(1_000), answer(1, 110, 0));
        node.take(at(3_000), answer(1, 150, 0));
        assert_eq!(node.rate(Counter::In), Some(20.0));
        assert_eq!(node.rates(Counter::In, 9), [Some(10.0), Some(20.0)]);
        assert_eq!(node.rates(Counter::In, 1), [Some(20.0)]);
        assert_eq!(node.rate(Counter::Cpu), None, "the page does not have it");
        node.take(at(3_000), answer(1, 160, 0));
        assert_eq!(node.rate(Counter::In), None, "no time has passed");
    }

    #[test]
    fn a_restarted_node_begins_anew() {
        let mut node = Watched::new("a:1".into());
        node.take(at(0), answer(1, 100, 0));
        node.take(at(1_000), answer(2, 5, 0));
        assert_eq!(node.rate(Counter::In), None);
        node.take(at(2_000), answer(2, 6, 0));
        assert_eq!(node.rates(Counter::In, 9), [Some(1.0)]);
    }

    #[test]
    fn a_silent_node_has_no_values_and_says_since_when() {
        let mut node = Watched::new("a:1".into());
        node.take(at(0), answer(1, 100, 0));
        node.take(at(1_000), answer(1, 110, 0));
        node.take(at(2_000), Err("refused".into()));
        node.take(at(3_000), Err("timed out".into()));
        assert_eq!(node.silence(), Some((at(2_000), "timed out")));
        assert_eq!((node.rate(Counter::In), node.gauge(Gauge::Connections)), (None, None));
        assert!(node.current().is_none() && node.last().is_some());
        node.take(at(4_000), answer(1, 140, 0));
        assert_eq!((node.silence(), node.rate(Counter::In)), (None, Some(10.0)));
    }

    #[test]
    fn latency_is_that_of_the_last_readings() {
        let mut node = Watched::new("a:1".into());
        let p99 = |node: &Watched| node.latency().0[0][0].quantile(0.99);
        node.take(at(0), answer(1, 0, 1_000));
        assert_eq!(p99(&node), None);
        node.take(at(1_000), answer(1, 100, 1_000));
        assert!(p99(&node).unwrap() < 0.001, "the slow ones are old");
        node.take(at(2_000), answer(1, 100, 1_100));
        assert!(p99(&node).unwrap() > 0.1);
        for second in 3..=2 + LATENCY_READINGS as u64 {
            node.take(at(second * 1_000), answer(1, 100 + second, 1_100));
        }
        assert!(p99(&node).unwrap() < 0.001);
        assert_eq!(node.latency().1, at(1_000 * LATENCY_READINGS as u64));
    }

    #[test]
    fn old_readings_are_forgotten() {
        let mut node = Watched::new("a:1".into());
        for second in 0..200 {
            node.take(at(second * 1_000), answer(1, second, 0));
        }
        assert_eq!(node.rates(Counter::In, usize::MAX - 1).len(), READINGS_MAX - 1);
    }
}
