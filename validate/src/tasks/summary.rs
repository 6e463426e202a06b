//! What a task asks, in a few lines.

use serde::{Deserialize, Serialize};

use super::sample::Request;

/// How a task asks, for a person who checks that it is the task that was meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Name of the layout, or `task file`, or `generated`.
    pub layout: String,
    /// Items that are scored.
    pub items: usize,
    /// Examples before each item.
    pub examples: usize,
    /// The names of the figures, the one that models are compared by last.
    pub metrics: Vec<String>,
    /// The first item: what a model is given, and what is scored or compared with its text.
    pub first: Vec<Request>,
    /// What may not be expected.
    pub notes: Vec<String>,
}

/// Characters of the first item that are shown in a few lines.
const SHOWN_CHARACTERS: usize = 400;

impl TaskSummary {
    /// In a few lines, for a terminal.
    pub fn describe(&self, task: &str) -> String {
        let metrics = self.metrics.join(", ");
        let (layout, items, examples) = (&self.layout, self.items, self.examples);
        let mut text = format!(
            "task {task}: layout {layout}, items {items}, examples {examples}, figures {metrics}\n"
        );
        for note in &self.notes {
            text += &format!("  {note}\n");
        }
        text += "  the first item:\n";
        for line in self.first_item(SHOWN_CHARACTERS).lines() {
            text += &format!("    {line}\n");
        }
        text.trim_end().to_owned()
    }

    /// The first item as text, of what is given at most `most` characters: the middle is left out.
    pub fn first_item(&self, most: usize) -> String {
        let is_written = self
            .metrics
            .iter()
            .any(|name| name.starts_with("exact_match"));
        let given = self.first.first().map_or("", |request| &request.context);
        // Of WinoGrande the contexts differ, of all others the continuations.
        let is_shared = self.first.iter().all(|request| request.context == given);
        let mut text = String::new();
        for (
            i,
            Request {
                context,
                continuation,
            },
        ) in self.first.iter().enumerate()
        {
            if i == 0 || !is_shared {
                text += &format!("{}\n", shortened(context, most));
            }
            let what = match is_written {
                true => "is compared with what the model writes",
                false => "is scored",
            };
            text += &format!("    {continuation:?} {what}\n");
        }
        text
    }
}

/// A text whose middle is left out where it has more than `most` characters.
fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let half = most / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(length - half).collect();
    format!("{head}\n[… {} characters …]\n{tail}", length - 2 * half)
}
