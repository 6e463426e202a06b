//! Adds the token that ends a turn to the generation settings of a checkpoint.
//!
//! Many checkpoints name only the token that ends a document, and a chat with them never stops in
//! programs that read nothing else. Which token ends a turn follows from the chat template, which
//! another crate renders.

use serde_json::{Value, json};
use sterna_ternary::file::FILES;

use crate::{Error, Result, Source};

const GENERATION: &str = "generation_config.json";

/// Adds `id` to `eos_token_id` of generation_config.json, which is made if it does not exist.
/// Returns whether it was missing there.
///
/// # Errors
/// [`Error::File`] for a file that is not a JSON object.
pub fn add_end_of_turn(source: &mut dyn Source, id: u32) -> Result<bool> {
    let of_config = source.config().eos_token_id.clone();
    let path = source.path().join(GENERATION);
    let wrong = |why| Error::File { path, why };
    let Some(files) = source.files_mut() else {
        return Ok(false);
    };
    let at = files.iter().position(|(name, _)| name == GENERATION);
    let mut settings = match at {
        None => json!({}),
        Some(at) => match sterna_ternary::json::parse(&files[at].1) {
            Ok(settings) if settings.is_object() => settings,
            Ok(_) => return Err(wrong("expected a JSON object".into())),
            Err(why) => return Err(wrong(why)),
        },
    };
    let mut ends = match &settings["eos_token_id"] {
        Value::Null => of_config.into_iter().map(Value::from).collect(),
        Value::Array(ids) => ids.clone(),
        one => vec![one.clone()],
    };
    if ends.contains(&id.into()) {
        return Ok(false);
    }
    ends.push(id.into());
    settings["eos_token_id"] = ends.into();
    let bytes = format!("{settings:#}\n").into_bytes();
    match at {
        Some(at) => files[at].1 = bytes,
        None => {
            files.push((GENERATION.to_owned(), bytes));
            files.sort_by_key(|(name, _)| FILES.iter().position(|known| known == name));
        }
    }
    Ok(true)
}
