//! Plots as SVG: bars of stacked parts, and lines over a numeric axis.

use super::page::escape;
use std::fmt::Write as _;

const BAR: f64 = 16.0;
const GAP: f64 = 10.0;
const LABEL: f64 = 400.0;
const WIDTH: f64 = 720.0;
/// Room behind the longest bar for what it is marked with.
const MARGIN: f64 = 190.0;
const LEGEND: f64 = 22.0;

/// A horizontal bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// What stands before it; the first of a group is preceded by a gap.
    pub label: String,
    /// Lengths, each with the number of its colour, 0–5.
    pub parts: Vec<(f64, usize)>,
    /// A range instead of a value: an open bar from the end of the parts to here.
    pub until: Option<f64>,
    /// A mark across the bar: the goal.
    pub goal: Option<f64>,
    /// What stands behind it.
    pub note: String,
    /// Leaves a gap above.
    pub begins_group: bool,
}

/// Bars one below another, all to one scale from zero. `legend` names the colours.
#[must_use]
pub fn bars(bars: &[Bar], legend: &[(&str, usize)]) -> String {
    let end = |bar: &Bar| {
        let sum: f64 = bar.parts.iter().map(|(len, _)| len).sum();
        sum.max(bar.until.unwrap_or(0.0))
            .max(bar.goal.unwrap_or(0.0))
    };
    let longest = bars.iter().map(end).fold(f64::MIN_POSITIVE, f64::max);
    let scale = WIDTH / longest;
    let mut svg = Svg::default();
    svg.legend(legend, LABEL);
    let mut y = if legend.is_empty() { 0.0 } else { LEGEND };
    for bar in bars {
        if bar.begins_group {
            y += GAP;
        }
        svg.text(LABEL - 6.0, y + BAR - 5.0, "end", &bar.label);
        let mut x = LABEL;
        for (len, colour) in &bar.parts {
            svg.rect((x, y), (len * scale, BAR - 2.0), &format!("c{colour}"), "");
            x += len * scale;
        }
        let colour = bar.parts.last().map_or(0, |(_, colour)| *colour);
        if let Some(until) = bar.until {
            let to = LABEL + until * scale;
            let class = format!("c{colour}");
            svg.rect((x, y), (to - x, BAR - 2.0), &class, "opacity=0.45");
            x = to;
        }
        if let Some(goal) = bar.goal {
            let at = LABEL + goal * scale;
            svg.line((at, y - 2.0), (at, y + BAR), "goal");
            x = x.max(at);
        }
        svg.text(x + 6.0, y + BAR - 5.0, "start", &bar.note);
        y += BAR;
    }
    svg.close(LABEL + WIDTH + MARGIN, y + GAP)
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// In order of their abscissae.
    pub points: Vec<(f64, f64)>,
    /// The number of its colour, 0–5.
    pub colour: usize,
    /// Joined by a line; else each is marked, and has the series' name beside it.
    pub joined: bool,
}

/// Lines and marks over two axes that begin at zero.
#[must_use]
pub fn lines(series: &[Series], (x_name, y_name): (&str, &str)) -> String {
    const LEFT: f64 = 60.0;
    const HEIGHT: f64 = 260.0;
    /// Room above the plot for what the vertical axis shows, beside the legend.
    const AXIS_NAME: f64 = 60.0;
    let all = || series.iter().flat_map(|s| s.points.iter());
    let (x_step, x_end) = axis(all().map(|p| p.0).fold(0.0, f64::max));
    let (y_step, y_end) = axis(all().map(|p| p.1).fold(0.0, f64::max));
    let bottom = LEGEND + HEIGHT;
    let at = |(x, y): (f64, f64)| (LEFT + x / x_end * WIDTH, bottom - y / y_end * HEIGHT);
    let mut svg = Svg::default();
    let named: Vec<_> = series
        .iter()
        .filter(|s| s.joined)
        .map(|s| (s.name.as_str(), s.colour))
        .collect();
    svg.legend(&named, LEFT + AXIS_NAME);
    for tick in ticks(y_step, y_end) {
        let (x, y) = at((0.0, tick));
        svg.line((x, y), (x + WIDTH, y), "");
        svg.text(x - 6.0, y + 4.0, "end", &tick_label(tick));
    }
    for tick in ticks(x_step, x_end) {
        let (x, y) = at((tick, 0.0));
        svg.text(x, y + 16.0, "middle", &tick_label(tick));
    }
    svg.text(LEFT + WIDTH, bottom + 32.0, "end", x_name);
    svg.text(4.0, LEGEND - 8.0, "start", y_name);
    for of in series {
        let places: Vec<_> = of.points.iter().map(|p| at(*p)).collect();
        if of.joined {
            svg.path(&places, of.colour);
        }
        for (x, y) in places {
            svg.circle((x, y), of.colour);
            if !of.joined {
                svg.text(x + 7.0, y + 4.0, "start", &of.name);
            }
        }
    }
    svg.close(LEFT + WIDTH + MARGIN, bottom + 40.0)
}

/// Distance of ticks and the end of an axis that shows up to `most`: four to ten steps of 1, 2 or 5
/// times a power of ten.
fn axis(most: f64) -> (f64, f64) {
    if most <= 0.0 {
        return (0.25, 1.0);
    }
    let power = 10f64.powf((most / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0]
        .map(|s| s * power)
        .into_iter()
        .find(|step| most / step >= 4.0)
        .unwrap_or(power);
    // A multiple of the step is its own end, though division says a little more.
    (step, (most / step - 1e-9).ceil() * step)
}

fn ticks(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..=(end / step).round() as usize).map(move |tick| tick as f64 * step)
}

fn tick_label(tick: f64) -> String {
    match tick {
        t if t >= 1e6 => format!("{} M", t / 1e6),
        t if t >= 1e4 => format!("{} k", t / 1e3),
        // Steps are round, but their multiples not quite.
        t => format!("{}", (t * 1e6).round() / 1e6),
    }
}

/// An SVG element that is being written. Writing to a string cannot fail.
#[derive(Default)]
struct Svg(String);

impl Svg {
    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        let _ = write!(
            self.0,
            "<text x={x:.1} y={y:.1} text-anchor={anchor}>{text}</text>"
        );
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, more: &str) {
        let _ = write!(
            self.0,
            "<rect class={class} x={x:.1} y={y:.1} width={:.1} height={height:.1} {more} />",
            width.max(0.0)
        );
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = write!(
            self.0,
            "<line class=\"{class}\" x1={x1:.1} y1={y1:.1} x2={x2:.1} y2={y2:.1} />"
        );
    }

    fn circle(&mut self, (x, y): (f64, f64), colour: usize) {
        let _ = write!(
            self.0,
            "<circle class=c{colour} cx={x:.1} cy={y:.1} r=3.5 />"
        );
    }

    fn path(&mut self, points: &[(f64, f64)], colour: usize) {
        let steps: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        let _ = write!(
            self.0,
            "<path class=s{colour} d=\"M{}\" />",
            steps.join("L")
        );
    }

    fn legend(&mut self, names: &[(&str, usize)], mut x: f64) {
        for (name, colour) in names {
            self.rect((x, 2.0), (11.0, 11.0), &format!("c{colour}"), "");
            self.text(x + 16.0, 12.0, "start", name);
            x += 40.0 + 6.2 * name.chars().count() as f64;
        }
    }

    fn close(self, width: f64, height: f64) -> String {
        format!(
            "<svg width={width:.0} height={height:.0} viewBox=\"0 0 {width:.0} {height:.0}\" \
             role=img>{}</svg>",
            self.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_four_to_ten_round_steps() {
        for (most, expected) in [
            (1.0, (0.2, 1.0)),
            (890_000.0, (200_000.0, 1_000_000.0)),
            (4.0, (1.0, 4.0)),
            (0.07, (0.01, 0.07)),
        ] {
            let (step, end) = axis(most);
            assert!((step - expected.0).abs() < 1e-9, "{most}: {step}");
            assert!(
                (end - expected.1).abs() < expected.0 * 1e-6 + 1e-9,
                "{most}: {end}"
            );
            assert!(end >= most - 1e-9 && (3.9..=10.1).contains(&(end / step)));
        }
        assert_eq!(axis(0.0), (0.25, 1.0));
    }

    #[test]
    fn a_range_ends_in_a_bar_of_its_own() {
        let range = Bar {
            parts: vec![(16.0, 3)],
            until: Some(32.0),
            ..Bar::default()
        };
        let svg = bars(&[range], &[]);
        // HTML takes a slash that follows an unquoted value for a part of it.
        assert!(
            svg.contains("opacity=0.45 />") && !svg.contains("45/>"),
            "{svg}"
        );
        assert_eq!(
            svg.matches(&format!("width={:.1}", WIDTH / 2.0)).count(),
            2,
            "{svg}"
        );
    }

    #[test]
    fn bars_share_a_scale_that_holds_goals_too() {
        let bar = |len: f64, goal| Bar {
            label: "a & b".into(),
            parts: vec![(len, 0)],
            goal,
            ..Bar::default()
        };
        let svg = bars(&[bar(1.0, None), bar(2.0, Some(4.0))], &[("x", 0)]);
        assert!(svg.contains("a &amp; b"));
        // The goal of 4 is the full width, so a length of 1 is a quarter.
        assert!(svg.contains(&format!("width={:.1}", WIDTH / 4.0)), "{svg}");
        assert!(svg.contains(&format!("x1={:.1}", LABEL + WIDTH)), "{svg}");
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let series = Series {
            name: "s".into(),
            points: vec![(0.0, 0.0), (100.0, 4.0)],
            colour: 1,
            joined: true,
        };
        let svg = lines(&[series], ("x", "y"));
        assert!(svg.contains("d=\"M60.0 282.0L780.0 22.0\""), "{svg}");
    }
}
