//! What models are called, and how to ask for one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::served::Served;

/// Names that models cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    /// There are more names than models.
    #[error("--name is given {names} times for {models} models")]
    Many {
        /// Names that are given.
        names: usize,
        /// Models.
        models: usize,
    },
    /// A name that does not tell a model from the others.
    #[error("the name {0:?} is empty or there twice; name each model with --name")]
    Unclear(String),
}

/// The names of the models: those given, and for the others that of the file or folder.
///
/// # Errors
/// [`BadNames`].
pub fn names(given: &[String], models: &[PathBuf]) -> Result<Vec<String>, BadNames> {
    if given.len() > models.len() {
        return Err(BadNames::Many {
            names: given.len(),
            models: models.len(),
        });
    }
    let mut names = given.to_vec();
    for path in &models[names.len()..] {
        names.push(name(path));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || names[..i].contains(name) {
            return Err(BadNames::Unclear(name.clone()));
        }
    }
    Ok(names)
}

/// What a model is called: a name of the hub as it is, a path by its last part. The file of a run
/// is called like the run.
fn name(path: &Path) -> String {
    let text = path.to_string_lossy();
    if !path.exists() {
        return text.into_owned();
    }
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    match (path.is_dir(), &*stem(path), path.parent()) {
        (true, ..) => {
            let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            full.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        }
        (false, "model", Some(run)) if run.join("recipe.toml").exists() => stem(run),
        (false, stem, _) => stem.to_owned(),
    }
}

/// A command that asks a model, for a shell.
pub fn curl(address: SocketAddr, served: &Served, has_keys: bool) -> String {
    // The shell of Windows knows neither single quotes nor a backslash at the end of a line.
    let (next, quoted): (_, fn(&str) -> String) = match cfg!(windows) {
        true => ("^", |text| format!("\"{}\"", text.replace('"', "\\\""))),
        false => ("\\", |text| format!("'{text}'")),
    };
    let key = match has_keys {
        false => String::new(),
        true => format!(" -H {}", quoted("Authorization: Bearer KEY")),
    };
    let (path, rest) = match served.template.is_ok() {
        true => (
            "chat/completions",
            r#""messages": [{"role": "user", "content": "Hello!"}]"#,
        ),
        false => ("completions", r#""prompt": "Once", "max_tokens": 40"#),
    };
    let form = quoted("Content-Type: application/json");
    let body = quoted(&format!("{{\"model\": \"{}\", {rest}}}", served.name));
    format!("\ncurl http://{address}/v1/{path}{key} -H {form} {next}\n  -d {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_as_they_are_given() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir(at("run")).unwrap();
        for file in ["run/model.sterna", "run/recipe.toml", "tern.sterna"] {
            std::fs::write(at(file), "").unwrap();
        }
        let named = |given: &[&str], models: &[PathBuf]| {
            let given: Vec<String> = given.iter().map(|name| name.to_string()).collect();
            names(&given, models)
        };
        let models = [
            at("run"),
            at("tern.sterna"),
            at("tern.sterna"),
            "org/name@main".into(),
        ];
        let expected = ["run", "tern", "org/name@main"].map(str::to_owned);
        let without = [&models[..2], &models[3..]].concat();
        assert_eq!(named(&[], &without).unwrap(), expected);
        assert_eq!(named(&[], &[at("run/model.sterna")]).unwrap(), ["run"]);
        assert_eq!(named(&["a"], &models[..2]).unwrap(), ["a", "tern"]);
        assert_eq!(
            named(&[], &models),
            Err(BadNames::Unclear("tern".to_owned()))
        );
        assert_eq!(
            named(&[""], &models[..1]),
            Err(BadNames::Unclear(String::new()))
        );
        let many = BadNames::Many {
            names: 2,
            models: 1,
        };
        assert_eq!(named(&["a", "b"], &models[..1]), Err(many));
    }
}
