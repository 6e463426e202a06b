//! Reads conversations from records, one per record, in the three layouts that data sets use.
//!
//! | keys | roles |
//! |---|---|
//! | `messages`: a list of `role` and `content` | as written |
//! | `conversations`: `from` and `value` | `human` → user, `gpt` → assistant, others as written |
//! | `prompt`, `completion` | user, assistant |
//!
//! A conversation without an answer of the assistant teaches nothing and is an error.

use std::path::PathBuf;

use serde_json::Value;

use crate::records::{self, Records};
use crate::{Error, Result};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or another role that the chat template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// The role with the messages that are learned.
pub const ASSISTANT: &str = "assistant";

/// The conversations of files, in order; one is in memory at a time.
#[derive(Debug)]
pub struct Conversations {
    records: Records,
}

/// One conversation and its place in a file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The file.
    pub path: PathBuf,
    /// Its line, or the number of its record if the file has no lines, from 1.
    pub line: u64,
    /// Its messages, in order.
    pub messages: Vec<Message>,
}

/// Opens files of [`records`] and folders of them.
///
/// Errors if a path does not exist, a named file is of another kind, or nothing is found.
pub fn conversations(paths: &[PathBuf]) -> Result<Conversations> {
    let records = records::records(paths)?;
    Ok(Conversations { records })
}

impl Iterator for Conversations {
    type Item = Result<Conversation>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        let (path, line) = (self.records.path().to_owned(), self.records.line());
        let found = record.and_then(|record| match messages(&record) {
            Ok(messages) => Ok(Conversation {
                path,
                line,
                messages,
            }),
            Err(reason) => Err(Error::Conversation { path, line, reason }),
        });
        Some(found)
    }
}

/// The messages of one record, or what is wrong with it.
fn messages(record: &Value) -> Result<Vec<Message>, String> {
    let list = |key: &str, role: &str, content: &str| -> Result<Vec<Message>, String> {
        let list = record[key].as_array();
        let list = list.ok_or_else(|| format!("`{key}` is not a list"))?;
        let message = |m: &Value| message(named(&string(m, role)?), string(m, content)?);
        list.iter().map(message).collect()
    };
    let messages = if record.get("messages").is_some() {
        list("messages", "role", "content")?
    } else if record.get("conversations").is_some() {
        list("conversations", "from", "value")?
    } else if record.get("prompt").is_some() || record.get("completion").is_some() {
        vec![
            message("user", string(record, "prompt")?)?,
            message(ASSISTANT, string(record, "completion")?)?,
        ]
    } else {
        return Err("the record has none of these keys".into());
    };
    match messages.iter().any(|m| m.role == ASSISTANT) {
        true => Ok(messages),
        false => Err("there is no message of the assistant".into()),
    }
}

fn message(role: &str, content: String) -> Result<Message, String> {
    let role = role.to_owned();
    Ok(Message { role, content })
}

/// The name that chat templates have for a role of `conversations`.
fn named(role: &str) -> &str {
    match role {
        "human" => "user",
        "gpt" => ASSISTANT,
        role => role,
    }
}

fn string(value: &Value, key: &str) -> Result<String, String> {
    match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a string")),
        None => Err(format!("there is no `{key}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Vec<Result<Vec<(String, String)>, String>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jsonl"), lines).unwrap();
        let found = conversations(&[folder.path().to_owned()]).unwrap();
        let pairs = |c: Conversation| {
            let pair = |m: Message| (m.role, m.content);
            c.messages.into_iter().map(pair).collect()
        };
        found
            .map(|c| c.map(pairs).map_err(|e| e.to_string()))
            .collect()
    }

    #[test]
    fn the_three_kinds_of_records_say_the_same() {
        let lines = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}

            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}
            {"prompt": "Hi", "completion": "Yo"}"#;
        let expected = [("user", "Hi"), ("assistant", "Yo")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(read(lines), vec![Ok(expected.to_vec()); 3]);
    }

    #[test]
    fn errors_name_line_and_reason_and_reading_goes_on() {
        let lines = r#"{"messages": 3}
            {"messages": [{"role": "user"}]}
            {"conversations": [{"from": "human", "value": "Hi"}]}
            {"prompt": "Hi"}
            {"text": "x"}
            nothing
            {"prompt": "Hi", "completion": "Yo"}"#;
        let found = read(lines);
        for (i, expected) in [
            "line 1: `messages` is not a list",
            "line 2: there is no `content`",
            "line 3: there is no message of the assistant",
            "line 4: there is no `completion`",
            "line 5: the record has none of these keys",
            "line 6: expected",
        ]
        .into_iter()
        .enumerate()
        {
            let error = found[i].as_ref().unwrap_err();
            assert!(
                error.contains("a.jsonl") && error.contains(expected),
                "{error}"
            );
        }
        assert!(found[6].is_ok() && found.len() == 7);
    }

    #[test]
    fn files_of_another_kind_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "Hi").unwrap();
        assert!(matches!(
            conversations(&[path]),
            Err(Error::NoRecords { .. })
        ));
        let empty = conversations(&[folder.path().to_owned()]);
        assert!(matches!(empty, Err(Error::NoRecords { .. })));
    }
}
