//! Plots as inline SVG: lines over time, distributions over percentiles. Colours are the page's.

use std::fmt::Write as _;

/// Drawing area. Narrow, so that text keeps its size on a phone.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Points of a line at most: more than pixels say nothing.
const MAX_POINTS: usize = 600;

/// A line.
pub(super) struct Line {
    /// Its name in the legend.
    pub(super) name: String,
    /// Points; a gap where `y` is none.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// The horizontal axis.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum XAxis {
    /// Seconds.
    Time,
    /// `log10(1/(1-q))`: 1 is p90, 2 is p99, 3 is p99.9.
    Nines,
}

/// A plot.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// Unit of the vertical axis, for people.
    pub(super) unit: &'a str,
    pub(super) x: XAxis,
    pub(super) lines: Vec<Line>,
    /// A horizontal line with its name: a target.
    pub(super) bound: Option<(f64, String)>,
    /// Shaded stretches: from, to.
    pub(super) shaded: Vec<(f64, f64)>,
}

impl Plot<'_> {
    /// A `figure` element.
    pub(super) fn render(&self) -> String {
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut svg);
        svg
    }

    fn write(&self, s: &mut String) -> std::fmt::Result {
        let points = || self.lines.iter().flat_map(|l| &l.points);
        let x_max = points().map(|p| p.0).fold(0.0, f64::max).max(1e-9);
        let highest = points().filter_map(|p| p.1).fold(0.0, f64::max);
        // A bound far above everything would flatten the lines.
        let bound = self.bound.as_ref().filter(|(b, _)| *b <= highest * 4.0);
        let highest = highest.max(bound.map_or(0.0, |b| b.0));
        let top = if highest > 0.0 {
            nice_ceiling(highest)
        } else {
            1.0
        };
        let x_at = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
        let title = super::junit::escape(self.title);
        let unit = super::junit::escape(self.unit);
        write!(
            s,
            "<figure><figcaption>{title} <span class=\"unit\">{unit}</span></figcaption>"
        )?;
        write!(
            s,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        )?;
        for (from, to) in &self.shaded {
            let (a, b) = (x_at(from.clamp(0.0, x_max)), x_at(to.clamp(0.0, x_max)));
            let (y, height) = (TOP, HEIGHT - TOP - BOTTOM);
            let width = b - a;
            write!(
                s,
                "<rect class=\"shade\" x=\"{a:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\"/>"
            )?;
        }
        for n in 0..=4 {
            let value = top * f64::from(n) / 4.0;
            let (y, x2) = (y_at(value), WIDTH - RIGHT);
            let (label, at) = (short(value), LEFT - 5.0);
            write!(
                s,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{x2}\" y2=\"{y:.1}\"/>"
            )?;
            write!(
                s,
                "<text x=\"{at}\" y=\"{:.1}\" class=\"y\">{label}</text>",
                y + 3.5
            )?;
        }
        for (x, label) in self.x_labels(x_max) {
            let (x, y) = (x_at(x), HEIGHT - 8.0);
            write!(s, "<text x=\"{x:.1}\" y=\"{y}\" class=\"x\">{label}</text>")?;
        }
        if let Some((value, _)) = bound {
            let (y, x2) = (y_at(*value), WIDTH - RIGHT);
            write!(
                s,
                "<line class=\"bound\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{x2}\" y2=\"{y:.1}\"/>"
            )?;
        }
        for (n, line) in self.lines.iter().enumerate() {
            let path = path(&line.points, x_at, y_at);
            write!(s, "<path class=\"l{n}\" d=\"{path}\"/>")?;
        }
        write!(s, "</svg><div class=\"legend\">")?;
        for (n, line) in self.lines.iter().enumerate() {
            let name = super::junit::escape(&line.name);
            write!(s, "<span><i class=\"k{n}\"></i>{name}</span>")?;
        }
        if let Some((_, name)) = bound {
            write!(
                s,
                "<span><i class=\"kb\"></i>{}</span>",
                super::junit::escape(name)
            )?;
        }
        write!(s, "</div></figure>")
    }

    fn x_labels(&self, x_max: f64) -> Vec<(f64, String)> {
        match self.x {
            XAxis::Nines => ["p0", "p90", "p99", "p99.9", "p99.99"]
                .iter()
                .enumerate()
                .map(|(n, label)| (n as f64, (*label).to_owned()))
                .filter(|(n, _)| *n <= x_max)
                .collect(),
            XAxis::Time => {
                let step = nice_step(x_max / 4.0);
                (0..=4)
                    .map(|n| f64::from(n) * step)
                    .filter(|x| *x <= x_max * 1.001)
                    .map(|x| (x, clock(x)))
                    .collect()
            }
        }
    }
}

/// The SVG path of a line, thinned to the highest point of each group.
fn path(
    points: &[(f64, Option<f64>)],
    x_at: impl Fn(f64) -> f64,
    y_at: impl Fn(f64) -> f64,
) -> String {
    let mut d = String::new();
    let mut pen_down = false;
    for group in points.chunks(points.len().div_ceil(MAX_POINTS).max(1)) {
        let highest = group.iter().filter_map(|(x, y)| y.map(|y| (*x, y)));
        let Some((x, y)) = highest.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            pen_down = false;
            continue;
        };
        let command = if pen_down { 'L' } else { 'M' };
        let _ = write!(d, "{command}{:.1} {:.1}", x_at(x), y_at(y));
        if !pen_down {
            // A point alone is a line of no length, which round caps show.
            d.push_str("h0");
        }
        pen_down = true;
    }
    d
}

/// 1, 2, 2.5 or 5 times a power of ten, at least `v`.
fn nice_step(v: f64) -> f64 {
    let power = 10f64.powf(v.max(1e-12).log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0];
    let factor = factor.iter().find(|f| **f * power >= v * 0.999_999);
    factor.copied().unwrap_or(10.0) * power
}

fn nice_ceiling(v: f64) -> f64 {
    nice_step(v / 4.0) * 4.0
}

fn short(v: f64) -> String {
    let text = match v.abs() {
        v if v >= 1e6 => return format!("{}M", short(v / 1e6)),
        v if v >= 1e4 => return format!("{}k", short(v / 1e3)),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.4}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn clock(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{} s", short(seconds))
    } else if seconds < 7_200.0 {
        format!("{} min", short(seconds / 60.0))
    } else {
        format!("{} h", short(seconds / 3_600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (v, nice) in [
            (0.9, 1.0),
            (1.1, 2.0),
            (7.0, 8.0),
            (95.0, 100.0),
            (0.013, 0.02),
        ] {
            assert!(
                (nice_ceiling(v) - nice).abs() < 1e-9,
                "{v}: {}",
                nice_ceiling(v)
            );
        }
        assert_eq!(
            (short(0.0), short(2.5), short(1_500_000.0)),
            ("0".into(), "2.5".into(), "1.5M".into())
        );
        assert_eq!(
            (clock(30.0), clock(5_400.0)),
            ("30 s".into(), "90 min".into())
        );
    }

    #[test]
    fn gaps_lift_the_pen_and_peaks_survive_thinning() {
        let points: Vec<(f64, Option<f64>)> = (0..6_000)
            .map(|n| {
                (
                    f64::from(n),
                    (n % 3_000 != 0).then_some(if n == 1_234 { 99.0 } else { 1.0 }),
                )
            })
            .collect();
        let d = path(&points, |x| x, |y| y);
        assert!(d.contains(" 99.0") && d.matches(['M', 'L']).count() <= MAX_POINTS);
        let gap = [(0.0, Some(1.0)), (1.0, None), (2.0, Some(1.0))];
        assert_eq!(path(&gap, |x| x, |y| y).matches('M').count(), 2);
    }
}
