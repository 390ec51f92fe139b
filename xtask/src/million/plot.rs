//! Line charts as SVG.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
/// Around the plot: room for the numbers of both axes and for the names of the lines.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 8] =
    ["#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6a4c93", "#00798c", "#8d6a9f", "#555555"];

/// A line of a chart: its name, and its points from left to right.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// A line without points.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), points: Vec::new() }
    }
}

/// What a chart shows.
pub struct Chart<'a> {
    pub title: &'a str,
    pub lines: &'a [Line],
    /// Vertical lines and what happened there.
    pub marks: &'a [(f64, &'a str)],
    /// The names of the places on the x axis at 0, 1, 2 ..; with none, it counts seconds.
    pub places: &'a [&'a str],
    /// The y axis is logarithmic.
    pub logarithmic: bool,
}

impl Chart<'_> {
    /// The chart as an SVG document.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let y_most = points().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
        let y_least = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(y_most, f64::min);
        // Whole decades, so that they can be written at the axis.
        let (least, most) = match self.logarithmic {
            true => (y_least.log10().floor(), y_most.log10().ceil().max(y_least.log10().floor() + 1.0)),
            false => (0.0, y_most * 1.05),
        };
        let x_of = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| {
            let y = if self.logarithmic { y.max(10_f64.powf(least)).log10() } else { y };
            HEIGHT - BOTTOM - (y - least) / (most - least) * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        text(&mut svg, LEFT, 20.0, "start", "#000000", self.title);
        let steps = if self.logarithmic { most - least } else { 5.0 };
        for step in 0..=steps as u32 {
            let value = least + (most - least) * f64::from(step) / steps;
            let value = if self.logarithmic { 10_f64.powf(value) } else { value };
            rule(&mut svg, (LEFT, y_of(value)), (WIDTH - RIGHT, y_of(value)), "#dddddd");
            text(&mut svg, LEFT - 8.0, y_of(value) + 4.0, "end", "#555555", &short(value));
        }
        let seconds: Vec<String> =
            (0..=6).map(|step| format!("{:.0} s", x_max * f64::from(step) / 6.0)).collect();
        let named = self.places.iter().enumerate().map(|(at, name)| (at as f64, *name));
        let counted = seconds.iter().enumerate().map(|(at, name)| (x_max * at as f64 / 6.0, name.as_str()));
        let ticks: Vec<_> = if self.places.is_empty() { counted.collect() } else { named.collect() };
        for (x, name) in ticks {
            text(&mut svg, x_of(x), HEIGHT - BOTTOM + 18.0, "middle", "#555555", name);
        }
        for (at, (x, name)) in self.marks.iter().enumerate() {
            rule(&mut svg, (x_of(*x), TOP), (x_of(*x), HEIGHT - BOTTOM), "#999999");
            // On two levels, as marks may be close to each other.
            text(&mut svg, x_of(*x) + 3.0, TOP + 10.0 + 14.0 * (at % 2) as f64, "start", "#777777", name);
        }
        for ((at, line), colour) in self.lines.iter().enumerate().zip(COLOURS.iter().cycle()) {
            let points: Vec<_> =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
            put(
                &mut svg,
                &format!(
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
                    points.join(" ")
                ),
            );
            text(&mut svg, WIDTH - RIGHT + 10.0, TOP + 12.0 + 18.0 * at as f64, "start", colour, &line.name);
        }
        put(&mut svg, "</svg>");
        svg
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    put(
        svg,
        &format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    put(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"),
    );
}

fn put(svg: &mut String, line: &str) {
    writeln!(svg, "{line}").expect("a string takes everything");
}

/// A number for an axis: 3 digits at most before its letter.
fn short(value: f64) -> String {
    let (scaled, letter) = match value {
        _ if value >= 1e9 => (value / 1e9, "G"),
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{letter}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_mark_is_in_the_chart_within_its_frame() {
        let line =
            |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let lines = [line("a < b", &[(0.0, 0.0), (10.0, 2e6)]), line("empty", &[])];
        for logarithmic in [false, true] {
            let chart =
                Chart { title: "t", lines: &lines, marks: &[(5.0, "half")], places: &[], logarithmic };
            let svg = chart.svg();
            assert!(svg.contains("a &lt; b") && svg.contains("half") && svg.ends_with("</svg>\n"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let points =
                svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            for number in points.split([' ', ',']).map(|number| number.parse::<f64>().unwrap_or(-1.0)) {
                assert!((0.0..=WIDTH).contains(&number), "{points}");
            }
        }
    }

    #[test]
    fn numbers_at_the_axis_are_short() {
        let numbers = [0.0, 0.25, 12.0, 1_500.0, 1_000_000.0, 2e9].map(short);
        assert_eq!(numbers, ["0", "0.25", "12", "1.5k", "1M", "2G"]);
    }
}
