//! The text of a record of a data set.

use serde_json::Value;

/// The text of a record, or what is wrong with it.
pub(super) fn text(record: &Value, column: Option<&str>) -> Result<String, String> {
    let string = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a string")),
        None => Err(format!("there is no `{key}`")),
    };
    // Merged sets have a null in every column of the others.
    let has = |key: &str| record.get(key).is_some_and(|value| !value.is_null());
    let is_null = |key: &str| record.get(key).is_some_and(Value::is_null);
    if let Some(column) = column {
        return match is_null(column) {
            true => Ok(String::new()),
            false => string(record, column).map_err(|reason| reason + &keys(record)),
        };
    }
    if has("text") {
        return string(record, "text");
    }
    if let Some(messages) = record.get("messages").filter(|_| has("messages")) {
        let messages = messages.as_array().ok_or("`messages` is not a list")?;
        let line = |message| {
            Ok(format!(
                "{}: {}\n",
                capital(&string(message, "role")?),
                string(message, "content")?
            ))
        };
        return messages.iter().map(line).collect();
    }
    if has("prompt") || has("completion") {
        return Ok(string(record, "prompt")? + &string(record, "completion")?);
    }
    if is_null("text") {
        return Ok(String::new());
    }
    Err("the record has none of these keys".to_owned() + &keys(record))
}

/// The keys of a record in words, where it has some.
fn keys(record: &Value) -> String {
    let keys = record
        .as_object()
        .into_iter()
        .flat_map(|record| record.keys());
    let keys: Vec<String> = keys.take(20).map(|key| format!("`{key}`")).collect();
    match keys.is_empty() {
        true => String::new(),
        false => format!(", it has {}", keys.join(", ")),
    }
}

/// The word with its first letter in upper case.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}
