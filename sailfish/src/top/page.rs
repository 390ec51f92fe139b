//! Pages of metrics in the text format of Prometheus, as they are read.

use std::collections::BTreeMap;

/// The samples of a page, by the names of their families.
pub struct Page<'t>(BTreeMap<&'t str, Vec<Sample<'t>>>);

/// A value and its labels as they are written, without the braces.
struct Sample<'t> {
    labels: &'t str,
    value: f64,
}

impl<'t> Page<'t> {
    /// Reads a page. Lines that are no samples, and values that are no numbers, are left out.
    pub fn read(text: &'t str) -> Self {
        let mut samples: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some(value) = value.parse().ok().filter(|value: &f64| value.is_finite()) else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}');
            samples.entry(name).or_default().push(Sample { labels, value });
        }
        Self(samples)
    }

    /// Whether the page has a sample of this family.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The sum over the samples of a family that have this label, written as `name="value"`, or over all for
    /// an empty one; `None` if there are none.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        self.samples(name, label).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The sum over the histograms of a family that have this label.
    pub fn histogram(&self, name: &str, label: &str) -> Histogram {
        let mut histogram = Histogram::default();
        for sample in self.samples(&format!("{name}_bucket"), label) {
            let bounds = sample.labels.split(',').filter_map(|label| label.strip_prefix("le=\""));
            let bound = bounds.filter_map(|bound| bound.trim_end_matches('"').parse::<f64>().ok()).next();
            if let Some(bound) = bound.filter(|bound| !bound.is_nan()) {
                histogram.add_bucket(bound, sample.value);
            }
        }
        histogram
    }

    fn samples(&self, name: &str, label: &str) -> impl Iterator<Item = &Sample<'t>> {
        let samples = self.0.get(name).into_iter().flatten();
        samples.filter(move |sample| label.is_empty() || sample.labels.split(',').any(|own| own == label))
    }
}

/// Upper bounds in seconds, ascending, each with the number of messages that took up to that long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            self.add_bucket(*bound, *count);
        }
    }

    /// The counts since an earlier reading of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (bound, count) in &earlier.0 {
            since.add_bucket(*bound, -count);
        }
        since
    }

    /// How many messages were counted.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The time that this part of the messages did not exceed, in seconds, interpolated within its bucket.
    /// Beyond the last finite bound it is that bound. `None` without a message.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let total = self.count();
        if total <= 0.0 {
            return None;
        }
        let wanted = part * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && bound.is_finite() {
                let within = (wanted - below) / (count - below).max(f64::MIN_POSITIVE);
                return Some(lower + (bound - lower) * within.clamp(0.0, 1.0));
            }
            if bound.is_finite() {
                (lower, below) = (*bound, *count);
            }
        }
        Some(lower)
    }

    fn add_bucket(&mut self, bound: f64, count: f64) {
        match self.0.binary_search_by(|(own, _)| own.total_cmp(&bound)) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bound, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP frames_total Frames.
# TYPE frames_total counter
frames_total{shard=\"0\",code=\"business\"} 5
frames_total{shard=\"1\",code=\"business\"} 7
frames_total{shard=\"1\",code=\"ack\"} 100
memory_bytes 4096

broken
worse{ x
nothing NaN
wait_seconds_bucket{shard=\"0\",route=\"user\",le=\"0.001\"} 50
wait_seconds_bucket{shard=\"0\",route=\"user\",le=\"0.002\"} 90
wait_seconds_bucket{shard=\"0\",route=\"user\",le=\"+Inf\"} 100
wait_seconds_bucket{shard=\"1\",route=\"user\",le=\"0.001\"} 50
wait_seconds_bucket{shard=\"1\",route=\"user\",le=\"0.002\"} 90
wait_seconds_bucket{shard=\"1\",route=\"user\",le=\"+Inf\"} 100
wait_seconds_bucket{shard=\"1\",route=\"room\",le=\"+Inf\"} 9
";

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let page = Page::read(PAGE);
        assert_eq!(page.sum("frames_total", ""), Some(112.0));
        assert_eq!(page.sum("frames_total", "code=\"business\""), Some(12.0));
        assert_eq!(page.sum("frames_total", "code=\"login\""), None);
        assert_eq!(page.sum("memory_bytes", ""), Some(4096.0));
        assert_eq!(page.sum("nothing", ""), None, "it is no number");
        assert!(page.has("memory_bytes") && !page.has("broken") && !page.has("frames"));
    }

    #[test]
    fn percentiles_are_those_of_all_shards() {
        let histogram = Page::read(PAGE).histogram("wait_seconds", "route=\"user\"");
        assert_eq!(histogram.count(), 200.0);
        for (part, seconds) in [(0.25, 0.0005), (0.5, 0.001), (0.7, 0.0015), (0.9, 0.002), (0.99, 0.002)] {
            let found = histogram.quantile(part).unwrap();
            assert!((found - seconds).abs() < 1e-9, "{part}: {found}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_since_has_percentiles_of_its_own() {
        let histogram = |one: f64, two: f64, all: f64| {
            let mut histogram = Histogram::default();
            [(f64::INFINITY, all), (0.001, one), (0.002, two)]
                .iter()
                .for_each(|(bound, count)| histogram.add_bucket(*bound, *count));
            histogram
        };
        let (before, after) = (histogram(1_000.0, 1_000.0, 1_000.0), histogram(1_000.0, 1_010.0, 1_010.0));
        let since = after.since(&before);
        assert_eq!(since.count(), 10.0);
        assert!(since.quantile(0.5).unwrap() > 0.001);
        assert_eq!(after.since(&after).quantile(0.5), None);
        assert_eq!(after.since(&Histogram::default()), after);
    }
}
