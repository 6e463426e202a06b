//! The end of a turn, as a chat template writes it.
//!
//! A chat stops at the token that follows an answer. The files of many checkpoints do not name it,
//! but the template writes it: render a short conversation and look at what follows the answer.

use super::{ChatTemplate, Message};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

const QUESTION: &str = "Which bird flies furthest?";
const ANSWER: &str = "The Arctic tern.";
const THANKS: &str = "Thank you.";

impl ChatTemplate {
    /// The texts that the template writes after an answer: after one that ends the conversation,
    /// and after one that a message of the user follows.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`], and [`Error::ChatTemplate`] for a template that drops the
    /// answer.
    pub fn after_answer(&self) -> Result<[String; 2]> {
        let messages = [
            Message::new("user", QUESTION),
            Message::new("assistant", ANSWER),
            Message::new("user", THANKS),
        ];
        let after = |messages: &[Message]| -> Result<String> {
            let text = self.render(messages, false)?;
            let end = text.rfind(ANSWER).map(|at| at + ANSWER.len());
            let end = end.ok_or_else(|| Error::ChatTemplate {
                file: self.file,
                why: "it drops the message of the assistant".into(),
            })?;
            Ok(text[end..].to_owned())
        };
        Ok([after(&messages[..2])?, after(&messages)?])
    }
}

impl Tokenizer {
    /// The token that ends an answer in conversations of this template. None if the template ends
    /// answers with plain text, or cannot write a conversation.
    ///
    /// The token after the last answer counts. Where plain text follows it, the token after an
    /// earlier answer does.
    pub fn end_of_turn(&self, template: &ChatTemplate) -> Option<u32> {
        let after = template.after_answer().ok()?;
        after.iter().find_map(|text| self.first_added(text))
    }
}
