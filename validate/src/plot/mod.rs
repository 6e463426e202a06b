//! Charts as SVG and PNG, drawn here: no font and no program of the machine is needed.

mod chart;
mod font;
mod picture;

pub use chart::{Chart, Curve, LARGE, LEGEND_ROW, Reach, SMALL, Scale};
pub use picture::{Anchor, Color, Mark, Picture};
