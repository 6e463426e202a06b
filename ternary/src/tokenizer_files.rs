//! One tokenizer.json from the files of a tokenizer, by the rules of transformers (5.24).
//!
//! A folder may name tokens that its tokenizer.json lacks: as special tokens in
//! tokenizer_config.json or special_tokens_map.json, in `added_tokens_decoder`, or in
//! added_tokens.json. transformers adds them when it loads the tokenizer. A token that the
//! vocabulary has keeps its id; every other token gets the next free id, whatever id its file
//! states.
//!
//! Some tokenizer classes also have rules of their own. `LlamaTokenizer` decides by
//! `add_prefix_space` and `legacy` where text gets a space, whatever tokenizer.json says; in classes
//! that split bytes, `add_prefix_space` counts. Their split rules stay those of tokenizer.json.

mod added;
mod class;
mod files;
mod parts;
mod restated;
mod table;

use serde_json::Value;

use crate::json;
use added::Added;
use files::Files;
use parts::Parts;
use table::Table;

/// Files that may name tokens, beside those that a packed file embeds.
pub const LEGACY: [&str; 2] = [ADDED_TOKENS, SPECIAL_TOKENS];

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// A tokenizer.json that contains what the other files say.
#[derive(Debug)]
pub struct Completed {
    /// The new tokenizer.json.
    pub json: Vec<u8>,
    /// The new tokenizer_config.json, if the given one would change the meaning of `json` in a
    /// folder without the [`LEGACY`] files.
    pub settings: Option<Vec<u8>>,
    /// A sentence for each change.
    pub changes: Vec<String>,
}

/// A file of a tokenizer that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Malformed {
    /// The name of the file.
    pub file: &'static str,
    /// Expected and found.
    pub why: String,
}

type Result<T> = std::result::Result<T, Malformed>;

/// Added tokens with their ids.
type WithIds = Vec<(u64, Added)>;

/// The files that transformers would make of these: they mean the same without the [`LEGACY`] files,
/// and when they are completed again. None if they are the given ones. `file` gives the bytes of a
/// file by its name.
///
/// # Errors
/// [`Malformed`] names the file that is not as transformers expects it.
pub fn complete<'a>(file: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Option<Completed>> {
    let Some(bytes) = file(TOKENIZER) else {
        return Ok(None);
    };
    let small = |name: &'static str| match file(name) {
        None => Ok(Value::Null),
        Some(bytes) => json::parse(bytes).map_err(|e| malformed(name, format!("not JSON: {e}"))),
    };
    let files = Files {
        settings: small(SETTINGS)?,
        special: small(SPECIAL_TOKENS)?,
        added: small(ADDED_TOKENS)?,
        config: small("config.json")?,
    };
    let tokenizer = complete_tokenizer(bytes, &files)?;
    if tokenizer.is_none() && !files.counts_legacy() {
        return Ok(None);
    }
    let is_same = tokenizer.is_none();
    let (json, mut changes) = tokenizer.unwrap_or_else(|| (bytes.to_vec(), Vec::new()));
    let overridden = files.overridden();
    let settings = match overridden.is_empty()
        && complete_tokenizer(&json, &files.without_legacy())?.is_none()
    {
        true => None,
        false => Some(files.settings_of(&Parts::read(&json)?.added()?)),
    };
    if !overridden.is_empty() {
        changes.push(format!(
            "special_tokens_map.json overrides tokenizer_config.json, as in transformers: {}",
            overridden.join(", ")
        ));
    }
    let completed = Completed {
        json,
        settings,
        changes,
    };
    Ok((!is_same || completed.settings.is_some()).then_some(completed))
}

/// The completed tokenizer.json, and a sentence for each change.
fn complete_tokenizer(bytes: &[u8], files: &Files) -> Result<Option<(Vec<u8>, Vec<String>)>> {
    let mut tokenizer = Parts::read(bytes)?;
    if tokenizer.model.is_none() {
        return Ok(None);
    }
    let own = tokenizer.added()?;
    let class = files.class(bytes).filter(|_| tokenizer.is_bpe());
    // A class that builds its own tokenizer starts without added tokens.
    let kept = if class.is_some() { &[] } else { &own[..] };
    let (missing, stated) = files.missing(&own, kept, class)?;
    let rebuilt = class.and_then(|class| class.rebuild(&files.settings, &mut tokenizer.values));
    if missing.is_empty() && rebuilt.is_none() {
        return Ok(None);
    }

    let mut table = Table::new(tokenizer.vocabulary()?);
    for token in kept.iter().chain(&missing) {
        table.add(token);
    }
    let mut changes = table.changes(&own, &missing, &stated);
    changes.extend(rebuilt);
    if changes.is_empty() {
        return Ok(None);
    }
    tokenizer.values.insert("added_tokens".into(), table.json());
    Ok(Some((tokenizer.written(), changes)))
}

/// The tokens of a tokenizer.json for which a model with `rows` rows in its embedding has none.
#[derive(Debug, Default)]
pub struct Beyond {
    /// Added tokens, such as one for padding. Other text does not contain them.
    pub added: Vec<(String, u64)>,
    /// The token of the vocabulary with the largest id. Any text can contain such tokens.
    pub vocabulary: Option<(String, u64)>,
}

/// Finds tokens with ids of `rows` and more.
///
/// # Errors
/// [`Malformed`] if the bytes are not a tokenizer.json.
pub fn beyond(tokenizer: &[u8], rows: usize) -> Result<Beyond> {
    let tokenizer = Parts::read(tokenizer)?;
    let mut table = Table::new(tokenizer.vocabulary()?);
    for token in &tokenizer.added()? {
        table.add(token);
    }
    let is_beyond = |id: u64| id >= rows as u64;
    let added = table.tokens.iter().filter(|(id, _)| is_beyond(*id));
    let added: Vec<_> = added
        .map(|(id, token)| (token.content.clone(), *id))
        .collect();
    let is_added = |content: &str| added.iter().any(|(added, _)| added == content);
    let vocabulary = table
        .vocabulary
        .iter()
        .filter(|(token, id)| is_beyond(**id) && !is_added(token));
    let vocabulary = vocabulary
        .max_by_key(|(_, id)| **id)
        .map(|(token, id)| (token.clone(), *id));
    Ok(Beyond { added, vocabulary })
}

fn malformed(file: &'static str, why: impl Into<String>) -> Malformed {
    let why = why.into();
    Malformed { file, why }
}
