//! Marks on a white page, written as SVG.

use std::fmt::Write;

/// Red, green, blue.
pub type Color = [u8; 3];

/// A page with marks, later ones on top; positions in pixels from the top left.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Width and height.
    pub size: (f64, f64),
    /// What is drawn.
    pub marks: Vec<Mark>,
}

/// Something drawn.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Points that are joined.
    Line {
        /// In order.
        points: Vec<(f64, f64)>,
        /// Of the stroke.
        color: Color,
        /// Of the stroke.
        width: f64,
    },
    /// A filled circle.
    Dot {
        /// Its middle.
        at: (f64, f64),
        /// All of it.
        color: Color,
        /// From the middle to the edge.
        radius: f64,
    },
    /// A filled rectangle.
    Area {
        /// Left and top.
        from: (f64, f64),
        /// Right and bottom.
        to: (f64, f64),
        /// All of it.
        color: Color,
    },
    /// A line of text.
    Text {
        /// On the base line.
        at: (f64, f64),
        /// What it says.
        text: String,
        /// Height of a line.
        size: f64,
        /// Of the letters.
        color: Color,
        /// What of it is at `at`.
        anchor: Anchor,
    },
}

/// Which part of a text its position is.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

impl Picture {
    /// The picture as the text of an SVG file. Equal pictures give equal bytes.
    pub fn svg(&self) -> String {
        let (width, height) = self.size;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        // Coordinates have one decimal: enough for a screen, and the same text on every machine.
        for mark in &self.marks {
            svg += &match mark {
                Mark::Line {
                    points,
                    color,
                    width,
                } => {
                    let points = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
                    let points = points.collect::<Vec<_>>().join(" ");
                    let color = hex(*color);
                    format!(
                        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" \
                         stroke-width=\"{width}\"/>\n"
                    )
                }
                Mark::Dot {
                    at: (x, y),
                    color,
                    radius,
                } => {
                    let color = hex(*color);
                    format!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{color}\"/>\n"
                    )
                }
                Mark::Area { from, to, color } => {
                    let ((x, y), color) = (from, hex(*color));
                    let (width, height) = ((to.0 - x).max(0.0), (to.1 - y).max(0.0));
                    format!(
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                         height=\"{height:.1}\" \
                         fill=\"{color}\"/>\n"
                    )
                }
                Mark::Text {
                    at: (x, y),
                    text,
                    size,
                    color,
                    anchor,
                } => {
                    let (color, text) = (hex(*color), escaped(text));
                    let anchor = match anchor {
                        Anchor::Start => "start",
                        Anchor::Middle => "middle",
                        Anchor::End => "end",
                    };
                    format!(
                        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" \
                         fill=\"{color}\" text-anchor=\"{anchor}\">{text}</text>\n"
                    )
                }
            };
        }
        svg + "</svg>\n"
    }
}

fn hex(color: Color) -> String {
    color.iter().fold("#".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_written_where_it_is_and_text_is_escaped() {
        let picture = Picture {
            size: (20.0, 10.0),
            marks: vec![
                Mark::Line {
                    points: vec![(0.0, 5.0), (20.0, 5.0)],
                    color: [255, 0, 0],
                    width: 2.0,
                },
                Mark::Dot {
                    at: (3.0, 4.0),
                    color: [0, 128, 0],
                    radius: 1.5,
                },
                Mark::Text {
                    at: (1.0, 9.0),
                    text: "a<b&c".into(),
                    size: 5.0,
                    color: [0, 0, 0],
                    anchor: Anchor::End,
                },
                Mark::Area {
                    from: (18.0, 7.0),
                    to: (20.0, 10.0),
                    color: [0, 0, 255],
                },
            ],
        };
        let expected = "\
            <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 20 10\" \
            font-family=\"sans-serif\">\n\
            <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
            <polyline points=\"0.0,5.0 20.0,5.0\" fill=\"none\" stroke=\"#ff0000\" \
            stroke-width=\"2\"/>\n\
            <circle cx=\"3.0\" cy=\"4.0\" r=\"1.5\" fill=\"#008000\"/>\n\
            <text x=\"1.0\" y=\"9.0\" font-size=\"5\" fill=\"#000000\" \
            text-anchor=\"end\">a&lt;b&amp;c</text>\n\
            <rect x=\"18.0\" y=\"7.0\" width=\"2.0\" height=\"3.0\" fill=\"#0000ff\"/>\n\
            </svg>\n";
        assert_eq!(picture.svg(), expected);
    }
}
