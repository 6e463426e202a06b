//! The recipes inside the program, from 1M to 100M parameters.

use std::path::PathBuf;

use super::Draft;
use crate::{Error, Result};

/// Names of `--preset` and their recipes, the smallest first.
const PRESETS: [(&str, &str); 5] = [
    ("tiny-1m", include_str!("../../../configs/tiny-1m.toml")),
    ("5m", include_str!("../../../configs/5m.toml")),
    ("15m", include_str!("../../../configs/15m.toml")),
    ("30m", include_str!("../../../configs/30m.toml")),
    ("100m", include_str!("../../../configs/100m.toml")),
];

/// The names, the smallest first.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.into_iter().map(|(name, _)| name)
}

/// A draft that begins with a preset.
///
/// # Errors
/// [`Error::Recipe`] if no preset has this name.
pub fn draft(name: &str) -> Result<Draft> {
    let preset = PRESETS.into_iter().find(|(preset, _)| *preset == name);
    let unknown = || Error::Recipe {
        path: PathBuf::from(name),
        why: format!(
            "no preset; expected one of {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    let (_, text) = preset.ok_or_else(unknown)?;
    let mut draft = Draft::default();
    draft.add(text, &format!("preset {name}"))?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use crate::{Opened, Run};

    use super::*;

    #[test]
    fn presets_are_short_complete_and_as_large_as_they_say() {
        let sizes = [1e6, 6e6, 15e6, 32e6, 105e6];
        for ((name, text), size) in PRESETS.into_iter().zip(sizes) {
            assert!(text.lines().count() <= 30, "{name}");
            let mut draft = draft(name).unwrap();
            draft.set_text("data.text=['a.txt']", "--text").unwrap();
            let (recipe, origins) = draft.finish("--text").unwrap();
            let run = Run::new(recipe, origins, Opened::default()).unwrap();
            let recipe = run.recipe();
            let config = run.config(recipe.data.vocab_size, 0, &[]).unwrap();
            let weights = sterna_ternary::layout::weights(&config);
            let found: usize = weights.iter().map(|w| w.rows.max(1) * w.columns).sum();
            assert!((found as f64 / size - 1.0).abs() < 0.1, "{name}: {found}");
            let tokens = recipe.train.steps as usize * recipe.train.batch;
            let tokens = tokens * recipe.train.accumulate * recipe.train.context;
            let each = tokens as f64 / found as f64;
            assert!(
                (17.0..23.0).contains(&each),
                "{name}: {each} tokens a parameter"
            );
        }
    }
}
