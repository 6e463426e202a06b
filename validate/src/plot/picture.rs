//! Marks on a white page, as SVG or as PNG.
//!
//! SVG leaves fonts to the viewer; PNG is drawn here, letters as strokes, so it looks the same everywhere.

use std::fmt::Write;

use super::font;
use crate::Result;

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

/// Pixels of the PNG for one of the picture, along each side.
const SCALE: f64 = 2.0;

impl Picture {
    /// As text.
    pub fn svg(&self) -> String {
        let (width, height) = self.size;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
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
                        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>\n"
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
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
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

    /// As a file of pixels, two for one of the picture along each side.
    ///
    /// # Errors
    /// [`crate::Error::Png`].
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut page = Page::new(self.size.0 * SCALE, self.size.1 * SCALE);
        for mark in &self.marks {
            match mark {
                Mark::Line {
                    points,
                    color,
                    width,
                } => page.line(points, *color, *width),
                Mark::Dot { at, color, radius } => page.segment(*at, *at, *color, 2.0 * radius),
                Mark::Area { from, to, color } => page.area(*from, *to, *color),
                Mark::Text {
                    at,
                    text,
                    size,
                    color,
                    anchor,
                } => page.text(*at, text, *size, *color, *anchor),
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, page.width as u32, page.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&page.pixels)?;
        Ok(bytes)
    }
}

/// Pixels, three bytes each, from the top left.
struct Page {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Page {
    fn new(width: f64, height: f64) -> Page {
        let (width, height) = (width as usize, height as usize);
        Page {
            width,
            height,
            pixels: vec![255; 3 * width * height],
        }
    }

    fn line(&mut self, points: &[(f64, f64)], color: Color, width: f64) {
        for ends in points.windows(2) {
            self.segment(ends[0], ends[1], color, width);
        }
    }

    /// Each pixel whose middle lies inside.
    fn area(&mut self, from: (f64, f64), to: (f64, f64), color: Color) {
        let range = |from: f64, to: f64, end: usize| {
            let pixel = |x: f64| ((x * SCALE).round().max(0.0) as usize).min(end);
            pixel(from)..pixel(to)
        };
        for y in range(from.1, to.1, self.height) {
            for x in range(from.0, to.0, self.width) {
                self.pixels[3 * (y * self.width + x)..][..3].copy_from_slice(&color);
            }
        }
    }

    /// A line with round ends: each pixel is covered by how far its middle lies inside the edge.
    fn segment(&mut self, a: (f64, f64), b: (f64, f64), color: Color, width: f64) {
        let scaled = |(x, y): (f64, f64)| (x * SCALE, y * SCALE);
        let (a, b, radius) = (scaled(a), scaled(b), width * SCALE / 2.0);
        let range = |a: f64, b: f64, end: usize| {
            let low = (a.min(b) - radius - 1.0).max(0.0) as usize;
            low..((a.max(b) + radius + 2.0).max(0.0) as usize).min(end)
        };
        for y in range(a.1, b.1, self.height) {
            for x in range(a.0, b.0, self.width) {
                let far = distance((x as f64 + 0.5, y as f64 + 0.5), a, b);
                let cover = (radius + 0.5 - far).clamp(0.0, 1.0);
                let pixel = &mut self.pixels[3 * (y * self.width + x)..][..3];
                for (old, new) in pixel.iter_mut().zip(color) {
                    let mixed = f64::from(*old) * (1.0 - cover) + f64::from(new) * cover;
                    *old = mixed.round() as u8;
                }
            }
        }
    }

    fn text(&mut self, at: (f64, f64), text: &str, size: f64, color: Color, anchor: Anchor) {
        let unit = 0.72 * size / font::HEIGHT; // capitals are 0.72 of a line
        let width = text.chars().count() as f64 * font::ADVANCE * unit;
        let mut left = at.0
            - match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
        for character in text.chars() {
            for stroke in font::strokes(character) {
                let place = |(x, y)| (left + x * unit, at.1 + (y - font::HEIGHT) * unit);
                let points: Vec<_> = stroke.into_iter().map(place).collect();
                self.line(&points, color, 0.09 * size);
            }
            left += font::ADVANCE * unit;
        }
    }
}

/// From a point to the nearest of a segment.
fn distance(p: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (along, to) = ((b.0 - a.0, b.1 - a.1), (p.0 - a.0, p.1 - a.1));
    let square = along.0 * along.0 + along.1 * along.1;
    let share = (to.0 * along.0 + to.1 * along.1) / square.max(1e-12);
    let share = share.clamp(0.0, 1.0);
    (to.0 - share * along.0).hypot(to.1 - share * along.1)
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
    fn a_line_is_where_it_should_be_and_text_is_escaped() {
        let picture = Picture {
            size: (20.0, 10.0),
            marks: vec![
                Mark::Line {
                    points: vec![(0.0, 5.0), (20.0, 5.0)],
                    color: [255, 0, 0],
                    width: 2.0,
                },
                Mark::Area {
                    from: (18.0, 7.0),
                    to: (20.0, 10.0),
                    color: [0, 0, 255],
                },
                Mark::Text {
                    at: (1.0, 9.0),
                    text: "a<b&c".into(),
                    size: 5.0,
                    color: [0, 0, 0],
                    anchor: Anchor::Start,
                },
            ],
        };
        assert!(picture.svg().contains(">a&lt;b&amp;c</text>"));
        let png = picture.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (40, 20));
        let pixel = |x: usize, y: usize| &pixels[3 * (y * 40 + x)..][..3];
        assert_eq!(pixel(20, 9), [255, 0, 0]);
        assert_eq!(pixel(20, 2), [255, 255, 255]);
        assert_eq!(
            (pixel(32, 14), pixel(31, 19)),
            (&[0, 0, 255][..], &[255; 3][..])
        );
    }
}
