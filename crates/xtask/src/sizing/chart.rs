//! Line charts as SVG, on logarithmic axes.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 58.0;
const COLOURS: [&str; 8] = [
    "#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#b45309", "#0f766e", "#be123c", "#525252",
];

/// What is drawn.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
    /// Levels with their names, dashed.
    pub(super) levels: Vec<(String, f64)>,
}

/// One line of it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// From the decade below the least to that above the most.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        let (low, high) = (low.floor(), high.ceil());
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, from, to }
    }

    fn at(self, value: f64) -> f64 {
        let share = (value.max(1e-12).log10().max(self.low) - self.low) / (self.high - self.low);
        share.mul_add(self.to - self.from, self.from)
    }

    fn decades(self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power))
    }
}

impl Chart {
    pub(super) fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let x = Axis::over(points().map(|(x, _)| x), LEFT, WIDTH - RIGHT);
        let levels = self.levels.iter().map(|(_, level)| *level);
        let y = Axis::over(points().map(|(_, y)| y).chain(levels), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let mut put = |part: String| {
            let _ = writeln!(svg, "{part}");
        };
        put(text(
            LEFT,
            24.0,
            "start",
            &format!("<tspan font-size=\"15\">{}</tspan>", self.title),
        ));
        for value in x.decades() {
            put(rule(x.at(value), TOP, x.at(value), HEIGHT - BOTTOM, "#ddd"));
            put(text(
                x.at(value),
                HEIGHT - BOTTOM + 18.0,
                "middle",
                &number(value),
            ));
        }
        for value in y.decades() {
            put(rule(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), "#ddd"));
            put(text(LEFT - 8.0, y.at(value) + 4.0, "end", &number(value)));
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        put(text(middle, HEIGHT - 16.0, "middle", self.x));
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        put(format!(
            "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y
        ));
        for (name, level) in &self.levels {
            let height = y.at(*level);
            put(format!(
                "<line x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{}\" y2=\"{height:.1}\" stroke=\"#222\" stroke-dasharray=\"5 4\"/>",
                WIDTH - RIGHT
            ));
            put(text(WIDTH - RIGHT + 8.0, height + 4.0, "start", name));
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let drawn: Vec<String> = line
                .points
                .iter()
                .map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py)))
                .collect();
            put(format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                drawn.join(" ")
            ));
            for (px, py) in &line.points {
                put(format!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x.at(*px),
                    y.at(*py)
                ));
            }
            let row = TOP + 10.0 + 20.0 * index as f64;
            // The names of levels stand on the right, too; lines are listed below the highest of them.
            let row = row + if self.levels.is_empty() { 0.0 } else { 110.0 };
            let left = WIDTH - RIGHT + 8.0;
            put(format!(
                "<rect x=\"{left}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>",
                row - 5.0
            ));
            put(text(left + 18.0, row, "start", &line.name));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64, colour: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>")
}

fn number(value: f64) -> String {
    if value >= 1000.0 {
        let thousands = format!("{value:.0}");
        let split = thousands.len() - 3;
        format!("{},{}", &thousands[..split], &thousands[split..])
    } else {
        format!("{value}")
    }
}
