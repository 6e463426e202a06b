//! Recipes: their keys and values, and how a preset, a file and flags make one.

mod check;
mod defaults;
mod draft;
mod origins;
mod places;
pub mod presets;
mod schema;

pub use draft::Draft;
pub use origins::Origins;
pub use schema::{
    DataRecipe, ModelRecipe, Recipe, ScalePer, TeacherRecipe, Text, TrainRecipe, WeightedText,
};

#[cfg(test)]
pub(crate) mod tests;
