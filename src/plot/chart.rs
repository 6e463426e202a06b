//! From curves to marks: axes with round numbers, lines, dots and a legend.

use super::picture::{Anchor, Color, Mark, Picture};

/// What is drawn, over each other.
pub struct Chart {
    pub curves: Vec<Curve>,
    pub x_label: &'static str,
    pub y_label: &'static str,
}

/// One run.
pub struct Curve {
    pub name: String,
    /// Training: (step, loss), at least one.
    pub line: Vec<(f64, f64)>,
    /// Held-out text: (step, loss).
    pub dots: Vec<(f64, f64)>,
}

const SIZE: (f64, f64) = (960.0, 560.0);
/// Left, top, right and bottom edge of the area of the curves.
const AREA: (f64, f64, f64, f64) = (70.0, 36.0, 940.0, 505.0);
const TEXT: f64 = 13.0;
const BLACK: Color = [40, 40, 40];
const GRID: Color = [225, 225, 225];
/// Told apart by color-blind people too: Okabe and Ito 2008, without yellow.
const COLORS: [Color; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
    [0, 0, 0],
];

impl Curve {
    /// Replaces the line by its running mean over about a fiftieth of it.
    pub fn smooth(&mut self) {
        let weight = 2.0 / (1.0 + self.line.len() as f64 / 50.0).max(2.0);
        let mut mean = self.line[0].1;
        for (_, y) in &mut self.line {
            mean += weight * (*y - mean);
            *y = mean;
        }
    }
}

impl Chart {
    /// The chart as marks.
    pub fn draw(&self) -> Picture {
        let (x, y) = (self.x_axis(), self.y_axis());
        let mut marks = Vec::new();
        for tick in x.ticks() {
            let at = x.place(tick);
            marks.push(line(&[(at, AREA.1), (at, AREA.3)], GRID, 1.0));
            marks.push(text((at, AREA.3 + 20.0), &x.label(tick), Anchor::Middle));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            marks.push(line(&[(AREA.0, at), (AREA.2, at)], GRID, 1.0));
            marks.push(text((AREA.0 - 8.0, at + 4.0), &y.label(tick), Anchor::End));
        }
        let (left, right) = (AREA.0, AREA.2);
        marks.push(line(
            &[(left, AREA.1), (left, AREA.3), (right, AREA.3)],
            BLACK,
            1.0,
        ));
        let middle = (left + right) / 2.0;
        marks.push(text((middle, SIZE.1 - 12.0), self.x_label, Anchor::Middle));
        marks.push(text((left, AREA.1 - 12.0), self.y_label, Anchor::Start));
        for (i, curve) in self.curves.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let place = |points: &[(f64, f64)]| -> Vec<_> {
                let shown = points.iter().filter(|(_, value)| *value <= y.high);
                shown
                    .map(|(step, value)| (x.place(*step), y.place(*value)))
                    .collect()
            };
            marks.push(line(&place(&curve.line), color, 1.6));
            let dots = place(&curve.dots);
            marks.push(line(&dots, color, 0.6));
            marks.extend(dots.into_iter().map(|at| Mark::Dot { at, color }));
            marks.extend(legend(i, curve, color));
        }
        Picture { size: SIZE, marks }
    }

    fn x_axis(&self) -> Axis {
        let steps = self.curves.iter().flat_map(|curve| &curve.line);
        let last = steps.map(|(step, _)| *step).fold(1.0, f64::max);
        Axis {
            low: 0.0,
            high: last,
            from: AREA.0,
            to: AREA.2,
        }
    }

    /// From the lowest value to the highest after the first fiftieth of each run, with some room.
    fn y_axis(&self) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for curve in &self.curves {
            let last = curve.line[curve.line.len() - 1].0;
            for (step, value) in curve.line.iter().chain(&curve.dots) {
                low = low.min(*value);
                if *step >= 0.02 * last {
                    high = high.max(*value);
                }
            }
        }
        let room = 0.04 * (high - low).max(0.01);
        Axis {
            low: low - room,
            high: high + room,
            from: AREA.3,
            to: AREA.1,
        }
    }
}

/// A range of values and the pixels it lies on.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The distance of ticks: 1, 2 or 5 times a power of ten, for five to twelve of them.
    fn step(&self) -> f64 {
        let rough = (self.high - self.low) / 10.0;
        let power = 10f64.powf(rough.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        factors
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = self.step();
        let (first, last) = (
            (self.low / step).ceil() as i64,
            (self.high / step).floor() as i64,
        );
        (first..=last).map(move |i| i as f64 * step)
    }

    fn label(&self, tick: f64) -> String {
        let decimals = (-self.step().log10().floor()).max(0.0) as usize;
        format!("{tick:.decimals$}")
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

/// A row at the top right: line and dot, name, last losses.
fn legend(row: usize, curve: &Curve, color: Color) -> [Mark; 3] {
    let y = AREA.1 + 18.0 + 20.0 * row as f64;
    let held_out = match curve.dots.last() {
        Some((_, loss)) => format!(", held-out {loss:.3}"),
        None => String::new(),
    };
    let name = format!(
        "{}: {:.3}{held_out}",
        curve.name,
        curve.line[curve.line.len() - 1].1
    );
    [
        line(
            &[(AREA.2 - 40.0, y - 4.0), (AREA.2 - 10.0, y - 4.0)],
            color,
            1.6,
        ),
        Mark::Dot {
            at: (AREA.2 - 25.0, y - 4.0),
            color,
        },
        text((AREA.2 - 48.0, y), &name, Anchor::End),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let check = |low, high, expected: &[&str]| {
            let axis = Axis {
                low,
                high,
                from: 0.0,
                to: 1.0,
            };
            let labels: Vec<String> = axis.ticks().map(|tick| axis.label(tick)).collect();
            assert_eq!(labels, expected);
        };
        check(0.0, 60.0, &["0", "10", "20", "30", "40", "50", "60"]);
        check(
            1.93,
            2.41,
            &[
                "1.95", "2.00", "2.05", "2.10", "2.15", "2.20", "2.25", "2.30", "2.35", "2.40",
            ],
        );
    }

    #[test]
    fn a_line_is_smoothed_and_its_first_steps_do_not_set_the_scale() {
        let mut curve = Curve {
            name: "a".into(),
            line: (1..=1000)
                .map(|i| (f64::from(i), if i == 1 { 90.0 } else { 2.0 }))
                .collect(),
            dots: vec![(1000.0, 2.5)],
        };
        curve.smooth();
        assert!(curve.line[1].1 < 90.0 && (curve.line[999].1 - 2.0).abs() < 1e-9);
        let chart = Chart {
            curves: vec![curve],
            x_label: "x",
            y_label: "y",
        };
        assert!(chart.y_axis().high < 30.0);
        let svg = chart.draw().svg();
        assert!(svg.contains("a: 2.000, held-out 2.500"), "{svg}");
    }
}
