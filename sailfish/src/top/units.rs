//! Numbers in few characters.

/// The heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A number or a rate, in five characters at most up to a thousand billions: `0`, `1.5`, `12345`, `123k`,
/// `1.23M`.
pub fn count(value: f64) -> String {
    match value {
        ..0.05 => "0".into(),
        ..9.95 if value.fract() != 0.0 => format!("{value:.1}"),
        ..99_999.5 => format!("{value:.0}"),
        ..999_500.0 => format!("{:.0}k", value / 1e3),
        ..9.995e6 => format!("{:.2}M", value / 1e6),
        ..9.995e7 => format!("{:.1}M", value / 1e6),
        ..9.995e8 => format!("{:.0}M", value / 1e6),
        ..9.995e9 => format!("{:.2}G", value / 1e9),
        ..9.995e10 => format!("{:.1}G", value / 1e9),
        _ => format!("{:.0}G", value / 1e9),
    }
}

/// Bytes, in five characters: `0`, `1023`, `1.2K`, `123M`.
pub fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "");
    for next in ["K", "M", "G", "T"] {
        if value < 1_023.5 {
            break;
        }
        (value, unit) = (value / 1_024.0, next);
    }
    match value {
        ..9.95 if !unit.is_empty() => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// How long a message took, in six characters: `0.13ms`, `1.2ms`, `123ms`, `1.2s`, `12s`, `3m`.
pub fn seconds(value: f64) -> String {
    match value {
        ..0.000_995 => format!("{:.2}ms", value * 1e3),
        ..0.009_95 => format!("{:.1}ms", value * 1e3),
        ..0.999_5 => format!("{:.0}ms", value * 1e3),
        ..9.95 => format!("{value:.1}s"),
        ..99.5 => format!("{value:.0}s"),
        _ => format!("{:.0}m", value / 60.0),
    }
}

/// How long ago something was, in its largest unit: `59s`, `12m`, `3h`, `12d`.
pub fn age(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{:.0}s", seconds.max(0.0).floor()),
        ..3_600.0 => format!("{:.0}m", (seconds / 60.0).floor()),
        ..172_800.0 => format!("{:.0}h", (seconds / 3_600.0).floor()),
        _ => format!("{:.0}d", (seconds / 86_400.0).floor()),
    }
}

/// A part of one CPU core: `0%`, `0.4%`, `12%`, `800%`.
pub fn percent(part: f64) -> String {
    match part * 100.0 {
        ..0.05 => "0%".into(),
        value @ ..9.95 => format!("{value:.1}%"),
        value => format!("{value:.0}%"),
    }
}

/// The values as bars from 0 to the highest of them, a blank for one that is missing, in `width` characters;
/// the latest stands at the end.
pub fn sparkline(values: &[Option<f64>], width: usize) -> String {
    let values = &values[values.len().saturating_sub(width)..];
    let highest = values.iter().flatten().fold(0.0, |highest: f64, value| highest.max(*value));
    let blanks = std::iter::repeat_n(' ', width - values.len());
    let bars = values.iter().map(|value| match value {
        None => ' ',
        Some(value) if highest > 0.0 => BARS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1],
        Some(_) => BARS[0],
    });
    blanks.chain(bars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.12, "0.1"),
            (9.0, "9"),
            (9.94, "9.9"),
            (9.97, "10"),
            (12_345.4, "12345"),
            (99_999.7, "100k"),
            (999_499.0, "999k"),
            (999_600.0, "1.00M"),
            (12_345_678.0, "12.3M"),
            (123_456_789.0, "123M"),
            (1.5e9, "1.50G"),
        ] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn bytes_have_units() {
        for (value, text) in [
            (0.0, "0"),
            (1_023.0, "1023"),
            (1_024.0, "1.0K"),
            (1_023.6, "1.0K"),
            (123e6, "117M"),
            (5e9, "4.7G"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn times_have_units() {
        let times = [0.000_06, 0.001_23, 0.012_3, 0.999, 0.999_9, 12.0, 150.0].map(seconds);
        assert_eq!(times, ["0.06ms", "1.2ms", "12ms", "999ms", "1.0s", "12s", "2m"]);
        let ages = [-1.0, 59.9, 60.0, 7_199.0, 90_000.0, 172_800.0].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "25h", "2d"]);
        assert_eq!([0.0, 0.004, 0.123, 16.0].map(percent), ["0%", "0.4%", "12%", "1600%"]);
    }

    #[test]
    fn a_sparkline_ends_with_the_latest() {
        assert_eq!(sparkline(&[Some(0.0), None, Some(4.0), Some(8.0)], 6), "  ▁ ▄█");
        assert_eq!(sparkline(&[Some(1.0), Some(0.0)], 1), "▁");
        assert_eq!(sparkline(&[], 3), "   ");
        assert_eq!(sparkline(&[Some(f64::INFINITY), Some(1.0)], 2).chars().count(), 2);
    }
}
