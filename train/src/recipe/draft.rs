//! A recipe that is put together from layers: a preset, a file and flags, where each value keeps
//! its origin.
//!
//! Every layer is checked when it is added, so an error names the layer that caused it. The crate
//! figment merges layers too. It is not used, because it has no keys that exclude each other, as
//! `mix`, `text` and `chat` do, and because it checks only the merged result.

use std::path::Path;

use sterna_ternary::durable::folder_of;
use toml::{Table, Value};

use super::origins::Origins;
use super::schema::{Recipe, is_name};
use crate::{Error, Result};

/// The layers so far; later ones replace values of earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    table: Table,
    origins: Origins,
}

/// Keys that exclude each other: a layer that sets one removes the others.
const ALTERNATIVES: [&str; 3] = ["data.mix", "data.text", "data.chat"];

impl Draft {
    /// Adds a TOML text as a layer. `origin` names it in errors and in [`Origins`].
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, or an impossible value.
    pub fn add(&mut self, text: &str, origin: &str) -> Result<()> {
        let fail = |e: toml::de::Error| refused(origin, e.to_string());
        if self.table.is_empty() {
            toml::from_str::<Recipe>(text).map_err(fail)?; // for errors with line and column
        }
        let layer: Table = toml::from_str(text).map_err(fail)?;
        for (section, values) in layer {
            match values {
                Value::Table(values) => {
                    let there = self.table.entry(&section);
                    there.or_insert_with(|| Table::new().into()); // a section may be empty
                    for (key, value) in values {
                        self.put(&section, &key, value, origin);
                    }
                }
                _ => {
                    return Err(refused(
                        origin,
                        format!("`{section}` is not in a section like [model], [data] or [train]"),
                    ));
                }
            }
        }
        self.parsed(origin).map(|_| ())
    }

    /// Like [`Draft::add`] with a file. Relative paths in it are relative to its folder.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let origin = path.display().to_string();
        self.add(&text, &origin)?;
        let folder = folder_of(path);
        self.place_checkpoints(folder, &origin);
        self.place_template(folder, &origin);
        self.place_data(folder, &origin);
        Ok(())
    }

    /// Prepends the folder of a file to the checkpoints that it names.
    fn place_checkpoints(&mut self, folder: &Path, origin: &str) {
        for section in ["model", "teacher"] {
            if self.origins.of(&format!("{section}.from")) == origin
                && let Some(Value::String(from)) = self.value(section, "from")
            {
                // If there is no such file, the value may be a name.
                let path = folder.join(from);
                if path.exists() {
                    self.put(section, "from", text_of(&path), origin);
                }
            }
        }
    }

    /// Prepends the folder of a file to the chat template that it names by a path.
    fn place_template(&mut self, folder: &Path, origin: &str) {
        if self.origins.of("data.template") == origin
            && let Some(Value::String(template)) = self.value("data", "template")
            && template.ends_with(".jinja")
        {
            let path = folder.join(template);
            self.put("data", "template", text_of(&path), origin);
        }
    }

    /// Prepends the folder of a file to the paths of its texts and conversations.
    fn place_data(&mut self, folder: &Path, origin: &str) {
        for key in ["text", "chat"] {
            if self.origins.of(&format!("data.{key}")) != origin {
                continue;
            }
            let Some(Value::Array(mut entries)) = self.value("data", key).cloned() else {
                continue;
            };
            for entry in &mut entries {
                // An entry is a path, or a table of a path and its weight.
                let path = match entry {
                    Value::Table(weighted) => weighted.get_mut("path"),
                    path => Some(path),
                };
                if let Some(path) = path
                    && let Value::String(text) = path
                    && !is_name(Path::new(text))
                {
                    *path = text_of(&folder.join(text));
                }
            }
            self.put("data", key, Value::Array(entries), origin);
        }
    }

    /// Sets one value by its key, like `train.steps`.
    ///
    /// # Errors
    /// As for [`Draft::add`].
    pub fn set(&mut self, key: &str, value: Value, origin: &str) -> Result<()> {
        let Some((section, name)) = key.split_once('.') else {
            return Err(refused(
                origin,
                format!("`{key}` has no section; write section.key, like train.steps"),
            ));
        };
        self.put(section, name, value, origin);
        self.parsed(origin).map(|_| ())
    }

    /// Sets one value from text like `train.steps=100`. Text that is not a TOML value is a string.
    pub fn set_text(&mut self, assignment: &str, origin: &str) -> Result<()> {
        let Some((key, text)) = assignment.split_once('=') else {
            let why = format!("`{assignment}`: expected section.key=value");
            return Err(refused(origin, why));
        };
        let parsed = toml::from_str::<Table>(&format!("value = {text}"));
        let value = parsed.ok().and_then(|mut table| table.remove("value"));
        self.set(key.trim(), value.unwrap_or_else(|| text.into()), origin)
    }

    /// The resolved and checked recipe, with absolute paths, and the origins of its values.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a missing key or a value out of range.
    pub fn finish(self, origin: &str) -> Result<(Recipe, Origins)> {
        let recipe = self.parsed(origin)?.resolved().with_absolute_paths();
        recipe.check(Path::new(origin))?;
        Ok((recipe, self.origins))
    }

    fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.table.get(section)?.get(key)
    }

    fn put(&mut self, section: &str, key: &str, value: Value, origin: &str) {
        let name = format!("{section}.{key}");
        let others = ALTERNATIVES.iter().filter(|other| **other != name);
        for other in others.filter(|_| ALTERNATIVES.contains(&&*name)) {
            let (section, key) = other.split_once('.').expect("the names above have one dot");
            if let Some(values) = self.table.get_mut(section).and_then(Value::as_table_mut) {
                values.remove(key);
            }
            self.origins.remove(other);
        }
        let values = self
            .table
            .entry(section)
            .or_insert_with(|| Table::new().into());
        if let Some(values) = values.as_table_mut() {
            values.insert(key.to_owned(), value);
        }
        self.origins.set(&name, origin);
    }

    fn parsed(&self, origin: &str) -> Result<Recipe> {
        let recipe = self.table.clone().try_into::<Recipe>();
        recipe.map_err(|e| refused(origin, e.to_string()))
    }
}

fn text_of(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

fn refused(origin: &str, why: String) -> Error {
    Error::Recipe {
        path: origin.into(),
        why: why.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Text, tests::SMALL};

    fn draft() -> Draft {
        let mut draft = Draft::default();
        draft.add(SMALL, "preset small").unwrap();
        draft
    }

    #[test]
    fn later_layers_win_and_every_value_knows_where_it_came_from() {
        let mut draft = draft();
        draft
            .add("[train]\nsteps = 20\nbatch = 4", "mine.toml")
            .unwrap();
        draft.set_text("train.batch=8", "--set").unwrap();
        draft.set_text("train.schedule=two-stage", "--set").unwrap();
        let (recipe, origins) = draft.finish("--set").unwrap();
        assert_eq!((recipe.train.steps, recipe.train.batch), (20, 8));
        assert_eq!(recipe.train.second_learning_rate, Some(1e-3 * 2.0 / 3.0));
        for (key, origin) in [
            ("train.context", "preset small"),
            ("train.steps", "mine.toml"),
            ("train.batch", "--set"),
            ("train.clip", "default"),
            ("train.second_learning_rate", "default"),
        ] {
            assert_eq!(origins.of(key), origin, "{key}");
        }
    }

    #[test]
    fn texts_take_the_place_of_a_mix_and_lie_beside_the_file_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, "[data]\ntext = ['a.txt']").unwrap();
        let mut draft = draft();
        draft.add_file(&file).unwrap();
        let (recipe, _) = draft.clone().finish("mine.toml").unwrap();
        assert_eq!(recipe.data.mix, None);
        let text = Text::Path(folder.path().join("a.txt"));
        assert_eq!(recipe.data.text, Some(vec![text]));
        std::fs::write(&file, "[data]\ntext = [{path = 'a.txt', weight = 2}]").unwrap();
        draft.add_file(&file).unwrap();
        let (recipe, _) = draft.clone().finish("mine.toml").unwrap();
        let weighted = recipe.data.text.unwrap();
        let expected = folder.path().join("a.txt");
        assert_eq!(
            (weighted[0].path(), weighted[0].weight()),
            (&*expected, Some(2.0))
        );
        draft.set_text("data.mix=stories=1", "--set").unwrap();
        assert!(draft.finish("--set").unwrap().0.data.text.is_none());
    }

    #[test]
    fn a_mistake_is_reported_with_the_layer_that_made_it() {
        let check = |assignment: &str, expected: &str| {
            let error = draft()
                .set_text(assignment, "--set")
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("--set: ") && error.contains(expected),
                "{error}"
            );
        };
        check("train.stepz=1", "stepz");
        check("train.steps=many", "steps");
        check("steps=1", "no section");
        check("train.steps", "expected section.key=value");
        check("trian.steps=1", "trian");
        let error = draft().add("steps = 3", "x.toml").unwrap_err().to_string();
        assert!(error.contains("x.toml"), "{error}");
    }
}
