//! From numbers to marks: axes with round numbers, lines, dots with labels, bars and a legend.

use super::picture::{Anchor, Color, Mark, Picture};

/// What is drawn, over each other.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Width and height in pixels.
    pub size: (f64, f64),
    /// Lines, dots and bars, each in a color of its own.
    pub curves: Vec<Curve>,
    /// From left to right.
    pub x: Scale,
    /// From bottom to top.
    pub y: Scale,
}

/// Points that belong together.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    /// In the legend; none if it is empty.
    pub name: String,
    /// Which of the colors it has; by default that of its place in the chart.
    pub color: Option<usize>,
    /// Points that are joined.
    pub line: Vec<(f64, f64)>,
    /// Points that are marked, and joined by a thin line.
    pub dots: Vec<(f64, f64)>,
    /// Points that stand alone, each with a label and whether it is filled.
    pub labels: Vec<((f64, f64), String, bool)>,
    /// From, to and height of bars.
    pub bars: Vec<(f64, f64, f64)>,
}

/// What an axis shows.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Its name and unit.
    pub label: String,
    /// Whether equal distances are equal ratios.
    pub is_log: bool,
    /// Which values it reaches.
    pub reach: Reach,
}

/// Which values an axis reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    /// All, with some room.
    Values,
    /// All, and zero.
    Zero,
    /// All except those of the first fiftieth of each line, where the loss of an untrained model is
    /// far above the rest.
    Settled,
}

/// Size of charts that fill a screen.
pub const LARGE: (f64, f64) = (960.0, 560.0);
/// Size of charts in a column or on a phone.
pub const SMALL: (f64, f64) = (480.0, 340.0);

/// Pixels between the edges of the page and the area of the curves: left, right, bottom and, above
/// the legend, top.
const MARGIN: (f64, f64, f64, f64) = (66.0, 20.0, 55.0, 36.0);
const TEXT: f64 = 13.0;
/// Height of a line of the legend, in pixels.
pub const LEGEND_ROW: f64 = 18.0;
/// Width of a letter of the legend at most, but for the rarest.
const LETTER: f64 = 7.0;
const BLACK: Color = [40, 40, 40];
const WHITE: Color = [255, 255, 255];
const GRID: Color = [225, 225, 225];
const GREY: Color = [130, 130, 130];
/// Colors that color-blind people can tell apart: Okabe and Ito 2008, with brown for yellow.
const COLORS: [Color; 8] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
    [0, 0, 0],
    [120, 80, 40],
];
const DOT: f64 = 3.0;
const LABELLED_DOT: f64 = 5.0;

impl Curve {
    /// Replaces the line by its running mean over about a fiftieth of it.
    pub fn smooth(&mut self) {
        let weight = 2.0 / (1.0 + self.line.len() as f64 / 50.0).max(2.0);
        let mut mean = self.line.first().map_or(0.0, |first| first.1);
        for (_, y) in &mut self.line {
            mean += weight * (*y - mean);
            *y = mean;
        }
    }

    /// Every point that must be seen.
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let labels = self.labels.iter().map(|(at, ..)| at);
        let ends = self
            .bars
            .iter()
            .flat_map(|(from, to, y)| [(*from, *y), (*to, *y)]);
        let points = self.line.iter().chain(&self.dots).chain(labels).copied();
        points.chain(ends)
    }
}

impl Scale {
    /// A linear one.
    pub fn linear(label: &str, reach: Reach) -> Scale {
        Scale {
            label: label.to_owned(),
            is_log: false,
            reach,
        }
    }

    /// A logarithmic one.
    pub fn log(label: &str) -> Scale {
        Scale {
            is_log: true,
            ..Scale::linear(label, Reach::Values)
        }
    }

    /// What is spread evenly: the value or its logarithm.
    fn of(&self, value: f64) -> f64 {
        match self.is_log {
            true => value.log10(),
            false => value,
        }
    }
}

impl Chart {
    /// The chart as marks.
    pub fn draw(&self) -> Picture {
        let (x, y) = (self.x_axis(), self.y_axis());
        let (top, bottom) = (y.to, y.from);
        let mut marks = Vec::new();
        for (tick, label) in x.ticks() {
            let at = x.place(tick);
            marks.push(line(&[(at, top), (at, bottom)], GRID, 1.0));
            marks.push(text((at, bottom + 20.0), &label, Anchor::Middle));
        }
        for (tick, label) in y.ticks() {
            let at = y.place(tick);
            marks.push(line(&[(x.from, at), (x.to, at)], GRID, 1.0));
            marks.push(text((x.from - 8.0, at + 4.0), &label, Anchor::End));
        }
        let frame = [(x.from, top), (x.from, bottom), (x.to, bottom)];
        marks.push(line(&frame, BLACK, 1.0));
        let below = ((x.from + x.to) / 2.0, self.size.1 - 12.0);
        marks.push(text(below, &self.x.label, Anchor::Middle));
        marks.push(text((8.0, top - 12.0), &self.y.label, Anchor::Start));
        let named = self.curves.iter().filter(|curve| !curve.name.is_empty());
        let rows: Vec<&Curve> = named.collect();
        for (i, curve) in self.curves.iter().enumerate() {
            let color = match curve.name.is_empty() {
                true => GREY,
                false => COLORS[curve.color.unwrap_or(i) % COLORS.len()],
            };
            if let Some(row) = rows.iter().position(|of| std::ptr::eq(*of, curve)) {
                let room = (self.size.0 - LEGEND_LEFT - MARGIN.1) / LETTER;
                marks.extend(legend(row, &shortened(&curve.name, room as usize), color));
            }
            self.draw_curve(curve, color, &x, &y, &mut marks);
        }
        Picture {
            size: self.size,
            marks,
        }
    }

    fn draw_curve(&self, curve: &Curve, color: Color, x: &Axis, y: &Axis, marks: &mut Vec<Mark>) {
        let place = |at: &(f64, f64)| (x.place(self.x.of(at.0)), y.place(self.y.of(at.1)));
        let places = |points: &[(f64, f64)]| -> Vec<_> {
            let seen = points.iter().filter(|at| self.y.of(at.1) <= y.high);
            seen.map(place).collect()
        };
        for (from, to, height) in &curve.bars {
            let (left, top) = place(&(*from, *height));
            let right = x.place(self.x.of(*to));
            marks.push(Mark::Area {
                from: (left + 0.5, top),
                to: (right - 0.5, y.from),
                color,
            });
        }
        marks.push(line(&places(&curve.line), color, 1.6));
        let dots = places(&curve.dots);
        marks.push(line(&dots, color, 0.6));
        let dot = |at, color, radius| Mark::Dot { at, color, radius };
        marks.extend(dots.into_iter().map(|at| dot(at, color, DOT)));
        for (at, label, is_filled) in &curve.labels {
            let at = place(at);
            marks.push(dot(at, color, LABELLED_DOT));
            if !is_filled {
                marks.push(dot(at, WHITE, LABELLED_DOT - 1.6));
            }
            let is_left = at.0 < (x.from + x.to) / 2.0;
            let (side, anchor) = match is_left {
                true => (9.0, Anchor::Start),
                false => (-9.0, Anchor::End),
            };
            marks.push(text((at.0 + side, at.1 - 6.0), label, anchor));
        }
    }

    fn x_axis(&self) -> Axis {
        let values = self.curves.iter().flat_map(Curve::points);
        let values = values.map(|at| self.x.of(at.0)).collect::<Vec<_>>();
        let (left, right) = (MARGIN.0, self.size.0 - MARGIN.1);
        Axis::new(&self.x, &values, left, right)
    }

    fn y_axis(&self) -> Axis {
        let mut values = Vec::new();
        for curve in &self.curves {
            let last = curve.line.last().map_or(0.0, |at| at.0);
            let is_settled =
                |at: &(f64, f64)| self.y.reach != Reach::Settled || at.0 >= 0.02 * last;
            let settled = curve.points().filter(is_settled);
            values.extend(settled.map(|at| self.y.of(at.1)));
        }
        let names = self.curves.iter().filter(|curve| !curve.name.is_empty());
        let top = MARGIN.3 + LEGEND_ROW * names.count() as f64;
        Axis::new(&self.y, &values, self.size.1 - MARGIN.2, top)
    }
}

/// A range of values (of logarithms, if `is_log`) and the pixels that it covers.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_log: bool,
}

impl Axis {
    fn new(scale: &Scale, values: &[f64], from: f64, to: f64) -> Axis {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (mut low, mut high) = (
            finite().fold(f64::INFINITY, f64::min),
            finite().fold(f64::NEG_INFINITY, f64::max),
        );
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if scale.reach == Reach::Zero {
            low = low.min(0.0);
        }
        let least = match scale.is_log {
            true => 0.5,
            false => 1e-3 * high.abs().max(1e-9),
        };
        let room = (0.05 * (high - low)).max(if high - low < least { least } else { 0.0 });
        let is_at_zero = scale.reach == Reach::Zero && low == 0.0;
        Axis {
            low: if is_at_zero { 0.0 } else { low - room },
            high: high + room,
            from,
            to,
            is_log: scale.is_log,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Values with a line, each with its label.
    fn ticks(&self) -> Vec<(f64, String)> {
        if self.is_log {
            return self.powers();
        }
        let step = self.step();
        let range = (self.low / step).ceil() as i64..=(self.high / step).floor() as i64;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let label = |tick: f64| match decimals {
            0..=6 => format!("{tick:.decimals$}"),
            _ => format!("{tick:.1e}"),
        };
        range
            .map(|i| (i as f64 * step, label(i as f64 * step)))
            .collect()
    }

    /// The distance of ticks: 1, 2 or 5 times a power of ten, for at most one tick in 60 pixels (36
    /// on the vertical axis).
    fn step(&self) -> f64 {
        let pixels = (self.to - self.from).abs();
        let most = (pixels / if self.to > self.from { 60.0 } else { 36.0 }).clamp(3.0, 12.0);
        let rough = (self.high - self.low) / most;
        let power = 10f64.powf(rough.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        factors
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power)
    }

    /// Powers of ten, with 2 and 5 between them where they are few.
    fn powers(&self) -> Vec<(f64, String)> {
        let decades = self.high - self.low;
        let factors: &[f64] = if decades < 1.8 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let every = (decades / 6.0).ceil().max(1.0) as i32;
        let powers = (self.low.floor() as i32..=self.high.ceil() as i32).filter(|p| p % every == 0);
        let ticks = powers.flat_map(|power| factors.iter().map(move |f| (*f, power)));
        let label = |factor: f64, power: i32| match power {
            -3..=4 => format!("{}", (factor * 10f64.powi(power) * 1e6).round() / 1e6),
            _ => format!("{factor}e{power}"),
        };
        let ticks = ticks.map(|(f, power)| (f.log10() + f64::from(power), label(f, power)));
        ticks
            .filter(|(at, _)| (self.low..=self.high).contains(at))
            .collect()
    }
}

fn line(points: &[(f64, f64)], color: Color, width: f64) -> Mark {
    Mark::Line {
        points: points.to_vec(),
        color,
        width,
    }
}

fn text(at: (f64, f64), text: &str, anchor: Anchor) -> Mark {
    Mark::Text {
        at,
        text: text.to_owned(),
        size: TEXT,
        color: BLACK,
        anchor,
    }
}

/// Where names begin in the legend, in pixels.
const LEGEND_LEFT: f64 = 46.0;

/// A name cut to at most `most` letters: the beginning and the end stay, which tell names apart.
fn shortened(name: &str, most: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= most {
        return name.to_owned();
    }
    let kept = most.saturating_sub(DOTS.len());
    let (begin, end) = (kept.div_ceil(2), letters.len() - kept / 2);
    let parts = [&letters[..begin], &DOTS, &letters[end..]];
    parts.into_iter().flatten().collect()
}

/// In the place of letters that are left out.
const DOTS: [char; 3] = ['.'; 3];

/// A row of the legend at the top: line and dot, then the name.
fn legend(row: usize, name: &str, color: Color) -> [Mark; 3] {
    let y = 18.0 + LEGEND_ROW * row as f64;
    let dot = Mark::Dot {
        at: (23.0, y - 4.0),
        color,
        radius: DOT,
    };
    [
        line(&[(8.0, y - 4.0), (38.0, y - 4.0)], color, 1.6),
        dot,
        text((LEGEND_LEFT, y), name, Anchor::Start),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_begin_and_end() {
        for (most, expected) in [(8, "abcdefgh"), (7, "ab...gh"), (4, "a..."), (1, "...")] {
            assert_eq!(shortened("abcdefgh", most), expected);
        }
    }

    fn ticks(low: f64, high: f64, is_log: bool) -> Vec<String> {
        let axis = Axis {
            low,
            high,
            from: 0.0,
            to: 600.0,
            is_log,
        };
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks(0.0, 60.0, false),
            ["0", "10", "20", "30", "40", "50", "60"]
        );
        let expected = [
            "1.95", "2.00", "2.05", "2.10", "2.15", "2.20", "2.25", "2.30", "2.35", "2.40",
        ];
        assert_eq!(ticks(1.93, 2.41, false), expected);
        assert_eq!(
            ticks(0.143781, 0.143829, false)[..2],
            ["0.143785", "0.143790"]
        );
        assert_eq!(ticks(0.3, 1.2, true), ["2", "5", "10"]);
        assert_eq!(ticks(-8.0, -1.0, true), ["1e-8", "1e-6", "1e-4", "0.01"]);
    }

    #[test]
    fn a_line_is_smoothed_and_its_first_steps_do_not_set_the_scale() {
        let mut curve = Curve {
            name: "a".into(),
            line: (1..=1000)
                .map(|i| (f64::from(i), if i == 1 { 90.0 } else { 2.0 }))
                .collect(),
            dots: vec![(1000.0, 2.5)],
            ..Curve::default()
        };
        curve.smooth();
        assert!(curve.line[1].1 < 90.0 && (curve.line[999].1 - 2.0).abs() < 1e-9);
        let chart = Chart {
            size: LARGE,
            curves: vec![curve],
            x: Scale::linear("x", Reach::Zero),
            y: Scale::linear("y", Reach::Settled),
        };
        assert!(chart.y_axis().high < 30.0);
        assert!(chart.draw().svg().contains(">a</text>"));
    }

    #[test]
    fn a_single_value_and_none_have_axes() {
        for values in [&[][..], &[5.0], &[0.0]] {
            for scale in [Scale::linear("", Reach::Values), Scale::log("")] {
                let axis = Axis::new(&scale, values, 0.0, 100.0);
                assert!(axis.high > axis.low);
                assert!(axis.place(axis.low).abs() < 1e-9);
            }
        }
    }
}
