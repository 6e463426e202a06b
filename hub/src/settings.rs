//! Where the hub and its cache are: the environment variables that every tool of the hub reads.
//!
//! `hf_hub` reads only `HF_HOME` and `HF_ENDPOINT`, and panics if there is no home folder. So the
//! variables are read here, and `hf_hub` gets the result.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hf_hub::Cache;

use super::{Error, Result};

/// The hub, its cache and how to use them.
#[derive(Clone)]
pub struct HubSettings {
    /// Scheme, host and optionally a path, without a slash at the end.
    pub endpoint: String,
    /// The token of the user, if there is one. It is sent only to the endpoint's own origin.
    pub token: Option<String>,
    /// The folder of all repositories.
    pub cache: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl HubSettings {
    /// Reads the variables of this process and the token file.
    ///
    /// # Errors
    /// [`Error::Setting`] for a variable with an invalid value, [`Error::Disk`] for a token file
    /// that cannot be read.
    pub fn from_env() -> Result<HubSettings> {
        HubSettings::read(&|name| std::env::var_os(name))
    }

    /// `HF_ENDPOINT`, `HF_TOKEN` or the token file, `HF_HUB_CACHE` or `HF_HOME`, `HF_HUB_OFFLINE`.
    fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<HubSettings> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(|value| under_home(Path::new(&value)));
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let home = || {
            let user = || Some(std::env::home_dir()?.join(".cache"));
            let caches = path("XDG_CACHE_HOME").or_else(user);
            let default = caches.map(|folder| folder.join("huggingface"));
            path("HF_HOME").or(default).ok_or(Error::Setting {
                name: "HF_HOME",
                why: "is not set and there is no home folder; set it to a folder for the cache"
                    .into(),
            })
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let why = format!("is {endpoint}, expected an address like https://huggingface.co");
            return Err(Error::Setting {
                name: "HF_ENDPOINT",
                why,
            });
        }
        let default = || Ok(Cache::new(home()?.join("hub")));
        let cache = match path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")) {
            Some(cache) => cache,
            None => default()?.path().clone(),
        };
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(token),
            None => read_token(&match path("HF_TOKEN_PATH") {
                Some(path) => path,
                None => default()?.token_path(),
            })?,
        };
        Ok(HubSettings {
            endpoint,
            token: token.map(check_token).transpose()?.flatten(),
            cache,
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
        })
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// Expands `~/folder`, since a shell does not expand it inside a variable.
fn under_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn read_token(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(token) => Ok(Some(token)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::disk(path)(e)),
    }
}

/// A token becomes a header, so it must be one word of visible characters. It is never printed.
fn check_token(token: String) -> Result<Option<String>> {
    let token = token.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "has characters that a token cannot have; copy it again from the hub's settings";
        return Err(Error::Setting {
            name: "HF_TOKEN",
            why: why.into(),
        });
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<HubSettings> {
        let found = |name: &str| variables.iter().find(|(n, _)| *n == name);
        HubSettings::read(&|name| found(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn variables_decide_in_the_usual_order() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let none = read(&[("XDG_CACHE_HOME", home)]).unwrap();
        assert_eq!(none.endpoint, "https://huggingface.co");
        assert_eq!(none.cache, folder.path().join("huggingface/hub"));
        assert!(none.token.is_none() && !none.offline);

        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let of_file = read(&[("HF_HOME", home), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert_eq!(of_file.cache, folder.path().join("hub"));
        assert_eq!(of_file.token.as_deref(), Some("hf_file"));
        assert!(of_file.offline);

        let all = read(&[
            ("HF_HOME", home),
            ("HF_HUB_CACHE", "/elsewhere"),
            ("HF_ENDPOINT", "http://127.0.0.1:80/"),
            ("HF_TOKEN", " hf_variable "),
            ("HF_HUB_OFFLINE", "0"),
        ])
        .unwrap();
        assert_eq!(all.cache, Path::new("/elsewhere"));
        assert_eq!(all.endpoint, "http://127.0.0.1:80");
        assert_eq!(all.token.as_deref(), Some("hf_variable"));
        assert!(!all.offline);
    }

    #[test]
    fn bad_variables_are_named_and_tokens_are_not_printed() {
        let error = |variables: &[(&str, &str)]| read(variables).err().unwrap().to_string();
        assert!(
            error(&[("HF_ENDPOINT", "huggingface.co")])
                .starts_with("HF_ENDPOINT is huggingface.co")
        );
        let token = error(&[("HF_TOKEN", "hf_secret\r\nX: y")]);
        assert!(
            token.starts_with("HF_TOKEN") && !token.contains("secret"),
            "{token}"
        );
    }
}
