//! The files of a repository at one commit, and which of them a verb needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use sterna_ternary::tokenizer_files;

use super::hash::Hash;
use super::name::{Name, is_commit, is_safe_path};
use super::{Error, Result, Want};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Size and hash of each file, by name.
#[derive(Debug, Default, PartialEq)]
pub struct Listing(pub BTreeMap<String, ListedFile>);

/// Size and hashes of a file. The hub always gives them. A cache that another program filled knows
/// only the names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ListedFile {
    pub size: Option<u64>,
    blob_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
}

impl ListedFile {
    /// SHA-256 of a file in large storage, whose `blob_id` belongs to a pointer file; else git's
    /// hash.
    pub fn hash(&self) -> Option<Hash> {
        Hash::parse(self.lfs_sha256.as_ref().or(self.blob_id.as_ref())?)
    }
}

/// Endings of the files that the trainer reads.
const TEXTS: [&str; 10] = [
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".json.gz",
    ".json.zst",
    ".ndjson",
    ".parquet",
    ".txt",
    ".txt.gz",
    ".txt.zst",
];

/// The reply of `/api/models/{repo}/revision/{revision}?blobs=true`.
#[derive(Deserialize)]
struct RevisionReply {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// `trees/{commit}.json` in the cache, in the format of huggingface_hub.
#[derive(Serialize, Deserialize)]
struct TreeFile {
    format_version: u32,
    files: BTreeMap<String, ListedFile>,
}

const TREE_VERSION: u32 = 1;

/// Files of a checkpoint beside its weights, its tokenizer and its chat templates.
const OTHERS: [&str; 4] = [
    "config.json",
    "generation_config.json",
    tokenizer_files::LEGACY[0],
    tokenizer_files::LEGACY[1],
];

impl Listing {
    /// Reads the hub's reply: the commit and its files.
    pub fn from_reply(json: &[u8]) -> std::result::Result<(String, Listing), String> {
        let reply: RevisionReply = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if !is_commit(&reply.sha) {
            return Err(format!("`sha` is {:?}, expected a commit", reply.sha));
        }
        let entry = |sibling: Sibling| {
            let (lfs_sha256, lfs_size) = sibling.lfs.map_or((None, None), |l| (l.sha256, l.size));
            let entry = ListedFile {
                size: lfs_size.or(sibling.size),
                blob_id: sibling.blob_id,
                lfs_sha256,
                lfs_size,
            };
            (sibling.rfilename, entry)
        };
        Ok((
            reply.sha,
            Listing(reply.siblings.into_iter().map(entry).collect()),
        ))
    }

    /// Reads a listing from the cache; `None` if it has another version or is damaged.
    pub fn from_tree(json: &[u8]) -> Option<Listing> {
        let tree: TreeFile = serde_json::from_slice(json).ok()?;
        (tree.format_version == TREE_VERSION).then_some(Listing(tree.files))
    }

    /// The JSON that [`Listing::from_tree`] reads; `None` if sizes or hashes are unknown.
    pub fn to_tree(&self) -> Option<Vec<u8>> {
        let is_whole = |e: &ListedFile| e.size.is_some() && e.blob_id.is_some();
        let tree = TreeFile {
            format_version: TREE_VERSION,
            files: self.0.clone(),
        };
        self.0
            .values()
            .all(is_whole)
            .then(|| serde_json::to_vec_pretty(&tree).expect("has string keys"))
    }

    /// Selects the files that `want` needs, small ones first.
    pub fn select(&self, name: &Name, want: Want) -> Result<Selection> {
        let repo = || name.repo.clone();
        let has = |file: &str| self.0.contains_key(file);
        let file = match &name.file {
            Some(file) if !has(file) => {
                return Err(Error::NoFile {
                    repo: repo(),
                    file: file.clone(),
                    there: self.there(),
                });
            }
            Some(file) => Some(file.clone()),
            None if want == Want::Texts => return self.texts(name),
            None => {
                let packed = || self.only(name, ".sterna");
                let first = if want == Want::Runnable {
                    packed()?
                } else {
                    None
                };
                match first {
                    None if has(INDEX) || has(SINGLE) => return self.checkpoint(name),
                    None => match self.only(name, ".gguf")? {
                        None if want == Want::Either => packed()?,
                        file => file,
                    },
                    packed => packed,
                }
            }
        };
        let file = file.ok_or_else(|| self.nothing(name, want))?;
        check(name, &file)?;
        Ok(Selection {
            files: vec![file.clone()],
            main: Some(file),
            index: None,
        })
    }

    fn checkpoint(&self, name: &Name) -> Result<Selection> {
        let belongs = |file: &&String| {
            let starts = |start| file.starts_with(start);
            let is_named = OTHERS.contains(&&***file);
            !file.contains('/') && (is_named || starts("tokenizer") || starts("chat_template"))
        };
        let mut files: Vec<String> = self.0.keys().filter(belongs).cloned().collect();
        // transformers takes the index only without a whole file.
        let is_sharded = !self.0.contains_key(SINGLE) && self.0.contains_key(INDEX);
        let index = is_sharded.then(|| INDEX.to_owned());
        files.push(index.clone().unwrap_or_else(|| SINGLE.to_owned()));
        files.iter().try_for_each(|file| check(name, file))?;
        let main = None;
        Ok(Selection { files, main, index })
    }

    /// All files that `sterna train` reads, in any folder.
    fn texts(&self, name: &Name) -> Result<Selection> {
        let is_text = |file: &&String| TEXTS.iter().any(|ending| file.ends_with(ending));
        let files: Vec<String> = self.0.keys().filter(is_text).cloned().collect();
        files.iter().try_for_each(|file| check(name, file))?;
        if files.is_empty() {
            return Err(self.nothing(name, Want::Texts));
        }
        Ok(Selection {
            files,
            main: None,
            index: None,
        })
    }

    /// The only file of the top folder with this ending; an error if there are several.
    fn only(&self, name: &Name, ending: &str) -> Result<Option<String>> {
        let fits = |file: &&String| file.ends_with(ending) && !file.contains('/');
        let found: Vec<&String> = self.0.keys().filter(fits).collect();
        match found[..] {
            [] => Ok(None),
            [file] => Ok(Some(file.clone())),
            _ => Err(Error::Several {
                repo: name.repo.clone(),
                there: list(found.into_iter()),
            }),
        }
    }

    fn nothing(&self, name: &Name, want: Want) -> Error {
        let (wanted, advice) = match want {
            Want::Texts => (
                ".jsonl, .ndjson, .parquet or .txt, packed or not",
                "; name a data set with such files".into(),
            ),
            _ => ("model.safetensors, no .gguf and no .sterna", String::new()),
        };
        Error::NothingToRun {
            repo: name.repo.clone(),
            wanted,
            there: self.there(),
            advice,
        }
    }

    fn there(&self) -> String {
        match self.0.is_empty() {
            true => "no files".into(),
            false => list(self.0.keys()),
        }
    }

    /// The files that an index names. All of them must be in the listing.
    pub fn shards(&self, name: &Name, index: &[u8]) -> Result<Vec<String>> {
        let error = |why: String| Error::Reply {
            url: format!("{}:{INDEX}", name.repo),
            why,
        };
        let json: Value = serde_json::from_slice(index).map_err(|e| error(e.to_string()))?;
        let map = json["weight_map"]
            .as_object()
            .ok_or_else(|| error("there is no `weight_map`".into()))?;
        let mut shards = BTreeSet::new();
        for file in map.values() {
            let file = file
                .as_str()
                .ok_or_else(|| error("`weight_map` has no file names".into()))?;
            check(name, file)?;
            if !self.0.contains_key(file) {
                return Err(error(format!(
                    "it names {file:?}, which the repository does not have"
                )));
            }
            shards.insert(file.to_owned());
        }
        Ok(shards.into_iter().collect())
    }
}

/// The files to fetch.
#[derive(Debug, PartialEq)]
pub struct Selection {
    pub files: Vec<String>,
    /// The one file that is the model; `None` if the model is a folder.
    pub main: Option<String>,
    /// The member of `files` that names further files.
    pub index: Option<String>,
}

fn check(name: &Name, file: &str) -> Result<()> {
    match is_safe_path(file) {
        true => Ok(()),
        false => Err(Error::HostileName {
            repo: name.repo.clone(),
            file: file.to_owned(),
        }),
    }
}

/// The first names, so that a message stays readable, and the number of further ones.
fn list<'a>(files: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 12;
    let more = files.len().saturating_sub(SHOWN);
    let names: Vec<String> = files
        .take(SHOWN)
        .map(|f| f.escape_debug().to_string())
        .collect();
    match more {
        0 => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(given: &str, want: Want, files: &[&str]) -> Result<Selection> {
        let entry = |file: &&str| (file.to_string(), ListedFile::default());
        Listing(files.iter().map(entry).collect()).select(&Name::parse(given).unwrap(), want)
    }

    #[test]
    fn a_checkpoint_is_its_weights_and_what_travels_with_them() {
        let check = |files: &[&str], expected: &[&str]| {
            let selection = select("a/b", Want::Checkpoint, files).unwrap();
            assert_eq!(
                (selection.files, selection.main),
                (expected.iter().map(|f| f.to_string()).collect(), None)
            );
        };
        let small = [
            "added_tokens.json",
            "config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let others = [
            "README.md",
            "original/tokenizer.model",
            "pytorch_model.bin",
            "consolidated.safetensors",
        ];
        check(
            &[&small[..], &others, &[SINGLE]].concat(),
            &[&small[..], &[SINGLE]].concat(),
        );
        check(
            &[&small[..], &[INDEX, "x.gguf"]].concat(),
            &[&small[..], &[INDEX]].concat(),
        );
        // A whole file comes before an index, which may be stale.
        check(
            &[&small[..], &[SINGLE, INDEX]].concat(),
            &[&small[..], &[SINGLE]].concat(),
        );
    }

    #[test]
    fn a_single_file_is_found_or_asked_for() {
        let check = |given: &str, want: Want, files: &[&str], expected: &str| {
            assert_eq!(
                select(given, want, files).unwrap().main.as_deref(),
                Some(expected)
            );
        };
        check("a/b", Want::Checkpoint, &["x.gguf", "README.md"], "x.gguf");
        check("a/b", Want::Runnable, &["m.sterna", SINGLE], "m.sterna");
        check("a/b", Want::Runnable, &["x.gguf"], "x.gguf");
        check("a/b", Want::Either, &["m.sterna"], "m.sterna");
        check(
            "a/b:sub/y.gguf",
            Want::Checkpoint,
            &["x.gguf", "sub/y.gguf"],
            "sub/y.gguf",
        );
        let error = |given: &str, want: Want, files: &[&str]| {
            select(given, want, files).unwrap_err().to_string()
        };
        let several = error("a/b", Want::Checkpoint, &["x.gguf", "y.gguf"]);
        assert!(several.contains("a/b:FILE: x.gguf, y.gguf"), "{several}");
        let none = error("a/b", Want::Checkpoint, &["pytorch_model.bin"]);
        assert!(none.contains("it has pytorch_model.bin"), "{none}");
        let folder = select("a/b", Want::Runnable, &[SINGLE]).unwrap();
        assert_eq!((folder.files, folder.main), (vec![SINGLE.to_owned()], None));
        assert!(error("a/b", Want::Either, &[]).contains("no files"));
        let absent = error("a/b:z.gguf", Want::Either, &["x.gguf"]);
        assert!(
            absent.contains("\"z.gguf\"") && absent.contains("x.gguf"),
            "{absent}"
        );
    }

    #[test]
    fn hostile_names_are_refused_or_not_needed() {
        for file in [
            "tokenizer\\..\\..\\x",
            "tokenizer\0",
            "tokenizer:x",
            "tokenizer\u{1b}[2J",
        ] {
            let error = select("a/b", Want::Checkpoint, &[SINGLE, file]).unwrap_err();
            assert!(matches!(error, Error::HostileName { .. }), "{error}");
            assert!(!error.to_string().contains(['\0', '\u{1b}']));
        }
        for file in ["../tokenizer.json", "/tokenizer.json", "tokenizer/../../x"] {
            assert_eq!(
                select("a/b", Want::Checkpoint, &[SINGLE, file])
                    .unwrap()
                    .files,
                [SINGLE]
            );
        }
    }

    #[test]
    fn shards_must_be_listed_and_stay_inside() {
        let entry = |file: &str| (file.to_owned(), ListedFile::default());
        let listing = Listing([entry("one.safetensors"), entry("../x"), entry("/x")].into());
        let shards = |index: &str| listing.shards(&Name::parse("a/b").unwrap(), index.as_bytes());
        let good = r#"{"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}"#;
        assert_eq!(shards(good).unwrap(), ["one.safetensors"]);
        for bad in [
            "",
            "{}",
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "../x"}}"#,
            r#"{"weight_map": {"a": "/x"}}"#,
            r#"{"weight_map": {"a": "two.safetensors"}}"#,
        ] {
            shards(bad).expect_err(bad);
        }
    }

    #[test]
    fn replies_and_trees_are_read() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let reply = |sha: &str| {
            format!(
                r#"{{"sha": "{sha}", "siblings": [
                    {{"rfilename": "config.json", "size": 3, "blobId": "{commit}"}},
                    {{"rfilename": "{SINGLE}", "size": 9, "blobId": "{commit}", "extra": 1,
                      "lfs": {{"sha256": "{0}{0}", "size": 9, "pointerSize": 128}}}}]}}"#,
                "89abcdef".repeat(4)
            )
        };
        let (sha, listing) = Listing::from_reply(reply(commit).as_bytes()).unwrap();
        assert_eq!(sha, commit);
        assert_eq!(listing.0["config.json"].hash().unwrap().as_str(), commit);
        assert_eq!(
            listing.0[SINGLE].hash().unwrap().as_str(),
            "89abcdef".repeat(8)
        );
        assert_eq!(
            Listing::from_tree(&listing.to_tree().unwrap()).as_ref(),
            Some(&listing)
        );
        Listing::from_reply(reply("../../x").as_bytes()).unwrap_err();
        Listing::from_reply(b"<html>").unwrap_err();
        assert_eq!(
            Listing::from_tree(br#"{"format_version": 2, "files": {}}"#),
            None
        );
        assert_eq!(
            Listing([("x".to_owned(), ListedFile::default())].into()).to_tree(),
            None
        );
    }
}
