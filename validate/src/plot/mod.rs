//! Charts as SVG, with axes, a legend and labels.
//!
//! They are written by hand, not with `plotters`, because the same numbers must give the same
//! bytes: tests and readers compare files, and a version of a library must not change them. Fonts
//! are the viewer's.

mod chart;
mod losses;
mod picture;
pub mod scaling;
mod sparkline;

pub use chart::{Chart, Curve, LARGE, LEGEND_ROW, Reach, SMALL, Scale};
pub use picture::{Anchor, Color, Mark, Picture};
pub use sparkline::sparkline;
