//! The options of `sterna serve`: flags over the keys of a TOML file with the same names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sterna_runtime::KvType;
use sterna_ternary::Memory;
use toml::Value;

use crate::choice::choice;
use crate::exit::BadInput;
use crate::model::{KV_TYPES, MEMORY};

/// Every option may be absent, so that a file can set it; `serve.rs` knows the defaults.
#[derive(clap::Args, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[group(skip)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Packed files, runs, folders, GGUF files, hub names [default: the quickstart's].
    ///
    /// Each is served under the name of its file or folder; --name gives other names. What is not
    /// packed is packed once and kept.
    #[arg(value_name = "MODEL")]
    pub models: Vec<PathBuf>,
    /// The name of a model in requests; repeatable, in the order of the models.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Answer for every name of a model, if one is served.
    #[arg(long)]
    pub any_model: bool,

    /// The address [default: 127.0.0.1].
    ///
    /// Another one than a loopback address needs keys, or --no-key.
    #[arg(long, value_name = "ADDRESS", help_heading = "Server")]
    pub host: Option<std::net::IpAddr>,
    /// The port [default: 8080]; 0 takes a free one.
    #[arg(long, short, value_name = "N", help_heading = "Server")]
    pub port: Option<u16>,
    /// Refuse requests with unknown fields.
    ///
    /// Without it they are ignored and named in the header X-Sterna-Ignored.
    #[arg(long, help_heading = "Server")]
    pub strict: bool,
    /// Do not answer GET /metrics.
    #[arg(long, help_heading = "Server")]
    pub no_metrics: bool,
    /// Offer a page at /local that runs the models in the browser.
    ///
    /// DIR is what `web/build` of the repository makes, target/web. Clients of the server can
    /// then load the files of its models.
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub local: Option<PathBuf>,
    /// Append requests and answers to a file, for `sterna replay`.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub log_requests: Option<PathBuf>,
    /// Seconds that a signal leaves to answers in progress [default: 30].
    ///
    /// A second signal ends the server at once.
    #[arg(long, value_name = "S", help_heading = "Server")]
    pub drain: Option<u64>,

    /// A file with one key of a client per line.
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub api_key_file: Option<PathBuf>,
    /// An environment variable with keys, one per line.
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    pub api_key_env: Option<String>,
    /// Answer everybody who reaches the address.
    #[arg(long, help_heading = "Security")]
    pub no_key: bool,
    /// Another name of this server while no key is set; repeatable.
    ///
    /// Names of loopback are always answered. Others are refused, because a page of another site
    /// can send requests under a name that it controls.
    #[arg(long = "allow-host", value_name = "NAME", help_heading = "Security")]
    #[serde(rename = "allow-host")]
    pub allow_hosts: Vec<String>,
    /// An origin whose pages may read answers; repeatable.
    #[arg(long = "cors-origin", value_name = "URL", help_heading = "Security")]
    #[serde(rename = "cors-origin")]
    pub cors_origins: Vec<String>,

    /// Tokens of prompt and answer [default: what model and memory allow].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub context: Option<usize>,
    /// Memory of keys and values, like 2GiB [default: a quarter of the memory].
    ///
    /// The default leaves room for the model and 1 GiB. A limit of the container counts as the
    /// memory.
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub kv_memory: Option<String>,
    /// Answers that are computed at the same time [default: 32].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub parallel: Option<usize>,
    /// Milliseconds of a step that prompts may fill [default: two tokens].
    ///
    /// The default is twice the time of one token, as measured, and at least 80.
    /// Less makes answers smoother while a prompt is computed, more makes prompts faster.
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    pub step: Option<u64>,
    /// Answers that may wait; more are refused with 429 [default: 256].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub queue: Option<usize>,
    /// Tokens of prompts that may wait [default: 131072].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub queue_tokens: Option<usize>,
    /// Longest wait in seconds until an answer begins [default: 120].
    #[arg(long, value_name = "S", help_heading = "Limits")]
    pub queue_timeout: Option<u64>,
    /// Longest time of an answer in seconds [default: 3600].
    #[arg(long, value_name = "S", help_heading = "Limits")]
    pub timeout: Option<u64>,
    /// Shares of the keys, like 3,1, in the order of the keys [default: equal].
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Limits"
    )]
    pub key_weights: Vec<f64>,

    /// Do not guess next tokens.
    ///
    /// Guesses come from the text, from earlier requests and from the field `prediction`. They make
    /// answers faster and do not change them.
    #[arg(long, help_heading = "Speculation", conflicts_with = "draft")]
    pub no_lookup: bool,
    /// A small model of the same tokens that guesses next tokens.
    ///
    /// Like MODEL. It serves one model; `sterna train --teacher` makes such models.
    #[arg(long, value_name = "MODEL", help_heading = "Speculation")]
    pub draft: Option<PathBuf>,

    /// Threads [default: one per physical core that this process may use].
    #[arg(long, value_name = "N", help_heading = "Memory and kernels")]
    pub threads: Option<usize>,
    /// Kernel table by name [default: the fastest]; results are the same.
    #[arg(long, value_name = "NAME", help_heading = "Memory and kernels")]
    pub kernels: Option<String>,
    /// Element type of the KV cache [default: f16].
    ///
    /// Results depend on it, and the fingerprint with them.
    #[arg(long, help_heading = "Memory and kernels")]
    #[arg(value_parser = choice(KV_TYPES, KvType::name))]
    pub kv: Option<KvType>,
    /// How the model is loaded [default: auto].
    #[arg(long, help_heading = "Memory and kernels")]
    #[arg(value_parser = choice(MEMORY, Memory::name))]
    pub memory: Option<Memory>,
}

impl Options {
    /// These options over those of a file.
    pub fn over_file(&self, path: &Path) -> anyhow::Result<Options> {
        let bad = |why: String| BadInput(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        Ok(self
            .over(&text)
            .map_err(|why| bad(why.trim_end().to_owned()))?)
    }

    fn over(&self, text: &str) -> Result<Options, String> {
        // Read with its own type first: the message then has the line.
        let _: Options = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut merged: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
        let flags = toml::Table::try_from(self).map_err(|e| e.to_string())?;
        // A flag that is not given is false, an empty list, or absent.
        let is_given = |value: &Value| match value {
            Value::Boolean(flag) => *flag,
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        merged.extend(flags.into_iter().filter(|(_, value)| is_given(value)));
        merged
            .try_into()
            .map_err(|e: toml::de::Error| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_over_the_file() {
        let flags = Options {
            port: Some(1),
            strict: true,
            ..Options::default()
        };
        let text = "port = 2\nqueue = 3\nmodels = ['a', 'b']\nallow-host = ['x']\nkv = 'q8'";
        let merged = flags.over(text).unwrap();
        let expected = Options {
            port: Some(1),
            strict: true,
            queue: Some(3),
            models: vec!["a".into(), "b".into()],
            allow_hosts: vec!["x".into()],
            kv: Some(KvType::Q8),
            ..Options::default()
        };
        assert_eq!(merged, expected);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        let none = Options::default();
        for (text, says) in [
            ("prot = 1", "prot"),
            ("port = 'x'", "port"),
            ("port = 70000", "70000"),
            ("host = 'nowhere'", "host"),
            ("config = 'other.toml'", "config"),
            ("kv = 'q4'", "`f32`, `f16`, `q8`"),
            ("memory = 'disk'", "`auto`, `map`, `copy`"),
        ] {
            let error = none.over(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_those_of_the_flags() {
        for (kv, _) in KV_TYPES {
            let options = Options::default().over(&format!("kv = '{}'", kv.name()));
            assert_eq!(options.unwrap().kv, Some(kv));
        }
        for (memory, _) in MEMORY {
            let options = Options::default().over(&format!("memory = '{}'", memory.name()));
            assert_eq!(options.unwrap().memory, Some(memory));
        }
    }

    #[test]
    fn every_flag_is_a_key() {
        use clap::Args;
        let command = Options::augment_args(clap::Command::new("serve"));
        for flag in command.get_opts() {
            let name = flag.get_long().unwrap();
            let key = if name == "name" { "names" } else { name };
            let error = Options::default()
                .over(&format!("{key} = {{}}"))
                .unwrap_err();
            assert!(!error.contains("unknown field"), "{name}: {error}");
        }
    }
}
