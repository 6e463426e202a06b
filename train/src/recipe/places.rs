//! The paths in a recipe: absolute, so that a recipe means the same in every folder.
//!
//! A path in a file is relative to the folder of the file, a path of a flag to the working folder.
//! The draft resolves both when it is finished, and `recipe.toml` of a run holds the result.

use std::path::{Path, PathBuf};

use super::schema::{Recipe, Text, is_name};

impl Recipe {
    /// The recipe with absolute paths. Names of the hub stay as they are.
    pub(super) fn with_absolute_paths(mut self) -> Recipe {
        self.map_paths(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        self
    }

    /// The recipe with the last parts of its paths, as [`Recipe::with_absolute_paths`] made them.
    /// Two recipes that differ only in folders are then equal.
    pub(crate) fn without_folders(mut self) -> Recipe {
        self.map_paths(|path| match path.file_name() {
            Some(name) if path.is_absolute() => name.into(),
            _ => path.to_owned(),
        });
        self
    }

    /// The paths of texts and of conversations.
    pub(crate) fn data_paths(&self) -> impl Iterator<Item = &Path> {
        let texts = self.data.text.iter().flatten().map(Text::path);
        texts.chain(self.data.chat.iter().flatten().map(PathBuf::as_path))
    }

    fn map_paths(&mut self, map: impl Fn(&Path) -> PathBuf) {
        let data = &mut self.data;
        let texts = data.text.iter_mut().flatten().map(Text::path_mut);
        let paths = texts.chain(data.chat.iter_mut().flatten());
        for path in paths.filter(|path| !is_name(path)) {
            *path = map(path);
        }
        let text_of = |path: PathBuf| path.to_string_lossy().into_owned();
        if let Some(template) = data.template.as_mut().filter(|t| t.ends_with(".jinja")) {
            *template = text_of(map(Path::new(template)));
        }
        // A checkpoint that is not there may be a name of the hub.
        let teacher = self.teacher.as_mut().map(|teacher| &mut teacher.from);
        for from in self.model.from.as_mut().into_iter().chain(teacher) {
            let path = Path::new(from);
            if path.is_absolute() || path.exists() {
                *from = text_of(map(path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Recipe;
    use crate::recipe::tests::SMALL;
    use std::path::Path;

    #[test]
    fn paths_become_absolute_and_names_stay() {
        let text = SMALL.replace("[model]", "[model]\nfrom = 'org/name'");
        let mut recipe = Recipe::parse(&text, Path::new("small.toml")).unwrap();
        recipe.data.mix = None;
        let named = toml::from_str::<toml::Table>("text = ['a/b.txt', 'hf:org/data', '/c/b.txt']");
        let texts = named.unwrap()["text"].clone();
        recipe.data.text = Some(texts.try_into().unwrap());
        let paths = |recipe: &Recipe| {
            let paths = recipe.data_paths().map(|path| path.display().to_string());
            paths.collect::<Vec<_>>()
        };
        let absolute = recipe.with_absolute_paths();
        let here = std::env::current_dir().unwrap().join("a/b.txt");
        let here = here.display().to_string();
        assert_eq!(paths(&absolute), [&*here, "hf:org/data", "/c/b.txt"]);
        assert_eq!(absolute.model.from.as_deref(), Some("org/name"));
        let named = absolute.without_folders();
        assert_eq!(paths(&named), ["b.txt", "hf:org/data", "b.txt"]);
        assert_eq!(named.model.from.as_deref(), Some("org/name"));
    }
}
