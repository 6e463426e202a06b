//! Recipes: what they may say, and how one is put together from a preset, a file and flags.

mod check;
mod defaults;
mod draft;
mod origins;
mod schema;

pub use draft::Draft;
pub use origins::Origins;
pub use schema::{
    DataRecipe, ModelRecipe, Recipe, ScalePer, TeacherRecipe, Text, TrainRecipe, WeightedText,
};

#[cfg(test)]
pub(crate) mod tests;
