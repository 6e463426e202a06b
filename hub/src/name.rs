//! Names of models on the hub: `org/name[@revision][:file]`. Names of data sets begin with `hf:`.
//!
//! The rules for `org/name` are the hub's own. Everything that becomes part of a path on this disk
//! is checked here: revisions and file names cannot leave their folder.

use hf_hub::RepoType;
use serde::Serialize;
use sterna_ternary::output::is_device;

use super::{Error, Result};

/// Prefix that marks the name of a data set of the hub, where a path could be given too.
const MARK: &str = "hf:";

/// Whether a user names a data set of the hub and not a path.
pub fn is_dataset(given: &str) -> bool {
    given.starts_with(MARK)
}

/// The content of a repository. Models and data sets have separate name spaces.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoKind {
    /// A model: `org/name`.
    Model,
    /// A data set: `hf:org/name`.
    Dataset,
}

impl RepoKind {
    /// The repository `org/name` of this kind at a revision.
    pub(crate) fn repo(self, repo: &str, revision: &str) -> hf_hub::Repo {
        let kind = match self {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(repo.to_owned(), kind, revision.to_owned())
    }

    /// The prefix of `org/name` in the name that a user types.
    pub fn mark(self) -> &'static str {
        match self {
            RepoKind::Model => "",
            RepoKind::Dataset => MARK,
        }
    }
}

impl std::fmt::Display for RepoKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            RepoKind::Model => "model",
            RepoKind::Dataset => "data set",
        })
    }
}

/// A repository of the hub as a user names it, optionally with a revision or one of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// Model or data set.
    pub kind: RepoKind,
    /// `org/name`.
    pub repo: String,
    revision: Option<String>,
    /// One file of the repository, instead of the files of a checkpoint.
    pub file: Option<String>,
}

const DEFAULT_REVISION: &str = "main";

/// Endings of files, which names of repositories do not have: `runs/model.gguf` is a mistyped path.
const FILE_ENDINGS: [&str; 4] = [".sterna", ".gguf", ".safetensors", ".json"];

impl Name {
    /// Reads `org/name[@revision][:file]` of a model, or `hf:org/name[@revision]` of a data set.
    pub fn parse(given: &str) -> Result<Name> {
        match given.strip_prefix(MARK) {
            Some(name) => Name::of(RepoKind::Dataset, name),
            None => Name::of(RepoKind::Model, given),
        }
    }

    /// Reads the text that follows the mark of its kind.
    fn of(kind: RepoKind, given: &str) -> Result<Name> {
        let error = |why: &str| match kind {
            RepoKind::Model => Error::Name {
                given: given.to_owned(),
                why: why.to_owned(),
            },
            RepoKind::Dataset => Error::DatasetName {
                given: format!("{MARK}{given}"),
                why: why.to_owned(),
            },
        };
        if given.contains("://") {
            return Err(error("is a web address; give only its org/name"));
        }
        let (rest, file) = match given.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (given, None),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (rest, None),
        };
        check_repo(repo).map_err(error)?;
        if file.is_none() && revision.is_none() && FILE_ENDINGS.iter().any(|e| repo.ends_with(e)) {
            return Err(error(
                "has the ending of a file; if it is a model, append @main",
            ));
        }
        if revision.is_some_and(|r| !is_safe_path(r)) {
            return Err(error(
                "has an invalid revision; expected a branch, a tag or a commit",
            ));
        }
        if file.is_some_and(|f| !is_safe_path(f)) {
            return Err(error(
                "has an invalid file name; expected a path inside the repository",
            ));
        }
        Ok(Name {
            kind,
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// The branch, tag or commit; `main` if none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The branch, tag or commit that was given.
    pub fn explicit_revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}{}", self.kind.mark(), self.repo)?;
        self.revision.iter().try_for_each(|r| write!(f, "@{r}"))?;
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

/// The hub's rules, so that a mistyped path costs no request.
fn check_repo(repo: &str) -> std::result::Result<(), &'static str> {
    let Some((org, name)) = repo.split_once('/') else {
        return Err("has no organization");
    };
    let is_plain = |part: &str| {
        let inner = part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let at_the_ends = part.starts_with(['-', '.']) || part.ends_with(['-', '.']);
        inner && !part.is_empty() && !at_the_ends
    };
    if !is_plain(org) || !is_plain(name) || repo.contains("..") || repo.contains("--") {
        return Err("must have letters, digits, `_`, single `-` and `.`, and one `/` between them");
    }
    if repo.len() > 96 || repo.ends_with(".git") {
        return Err("is longer than 96 characters or ends in .git");
    }
    Ok(())
}

/// Whether a revision is a commit of 40 digits, which always means the same files.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_lower_hex(revision)
}

pub fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a name from the hub or the user stays inside the folder it is joined to, on every
/// system: relative, no `..`, no backslash, drive or stream, nothing that cannot be printed.
/// Windows takes dots and spaces off the end of a name, and has devices.
pub fn is_safe_path(path: &str) -> bool {
    let is_device = |part: &str| cfg!(windows) && is_device(part);
    let is_part = |part: &str| !part.is_empty() && !part.ends_with(['.', ' ']) && !is_device(part);
    let is_plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':');
    path.len() <= 1024 && path.split('/').all(is_part) && path.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        let check = |given: &str, repo: &str, revision: &str, file: Option<&str>| {
            let name = Name::parse(given).unwrap();
            assert_eq!((&*name.repo, name.revision()), (repo, revision));
            assert_eq!(name.file.as_deref(), file);
            assert_eq!(name.to_string(), given);
        };
        check("a/b", "a/b", "main", None);
        check(
            "tiiuae/Falcon-E-1B@v1.0",
            "tiiuae/Falcon-E-1B",
            "v1.0",
            None,
        );
        check("a/b@refs/pr/1", "a/b", "refs/pr/1", None);
        check("a/b:c/d@2.gguf", "a/b", "main", Some("c/d@2.gguf"));
        check(
            "a/b_1.58-x@main:c.gguf",
            "a/b_1.58-x",
            "main",
            Some("c.gguf"),
        );
        check("a/b.gguf@main", "a/b.gguf", "main", None);
        check("hf:a/b@v1", "a/b", "v1", None);
        assert_eq!(Name::parse("hf:a/b").unwrap().kind, RepoKind::Dataset);
        assert_eq!(Name::parse("a/hf").unwrap().kind, RepoKind::Model);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for given in [
            "",
            "model",
            "a/b/c",
            "/a/b",
            "./a",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/b--c",
            "a/-b",
            "a/b.",
            "a b/c",
            "a\\b",
            "a/b.git",
            "~/b",
            "C:\\a",
            "a/b@",
            "a/b:",
            "a/b@../x",
            "a/b@x//y",
            "a/b:/etc/passwd",
            "a/b:..",
            "a/b:x\\y",
            "a/b:.. /x",
            "a/b:x.",
            "a/b:c:d",
            "a/b:x\0",
            "runs/model.sterna",
            "a/b.gguf",
            "https://huggingface.co/a/b",
        ] {
            let error = Name::parse(given).expect_err(given).to_string();
            assert!(error.contains("expected org/name"), "{error}");
        }
        Name::parse(&format!("a/{}", "b".repeat(95))).unwrap_err();
        let error = Name::parse("hf:stories").unwrap_err().to_string();
        let expected =
            "hf:stories is not the name of a data set: it has no organization; expected hf:";
        assert!(error.starts_with(expected), "{error}");
    }
}
