//! Conversations as a chat template writes them, with the places where the assistant speaks.
//!
//! An answer begins where the text of everything before it ends, as a chat would prompt for it, and
//! ends where the text of the conversation up to it ends: the token that ends the turn is learned
//! too. Some templates write an earlier turn differently once later turns follow (Qwen3 drops its
//! thoughts). Such an answer is not a part of the whole text. Then each answer gets a text of its
//! own, with all messages before it.

use crate::chat::Rendered;
use crate::conversation::{ASSISTANT, Message};

/// The texts of a conversation with the byte ranges of its answers: one text, or one per answer if
/// the template changes earlier turns.
///
/// `text` renders messages with the template; its second argument asks for the beginning of an
/// answer after them. What follows the last answer is left out.
///
/// # Errors
/// Those of `text`, a conversation without an answer, and an answer that does not begin where the
/// prompt for it ends.
pub fn rendered(
    messages: &[Message],
    text: impl Fn(&[Message], bool) -> Result<String, String>,
) -> Result<Vec<Rendered>, String> {
    let is_answer = |i: &usize| messages[*i].role == ASSISTANT;
    let answers: Vec<usize> = (0..messages.len()).filter(is_answer).collect();
    let last = answers.last().ok_or("there is no answer in it")?;
    let whole = text(&messages[..=*last], false)?;
    let mut in_whole = Vec::new();
    let mut alone = Vec::new();
    for i in &answers {
        // A template may write something before the first message; that is not a prompt.
        let before = if *i == 0 {
            String::new()
        } else {
            text(&messages[..*i], true)?
        };
        let up_to = text(&messages[..=*i], false)?;
        if !up_to.starts_with(&before) {
            return Err(format!(
                "message {} does not begin where the prompt for it ends, so no chat would \
                 produce it",
                i + 1
            ));
        }
        let answer = before.len()..up_to.len();
        if whole.starts_with(&up_to) {
            in_whole.push(answer.clone());
        }
        let answers = vec![answer];
        alone.push(Rendered {
            text: up_to,
            answers,
        });
    }
    match in_whole.len() == answers.len() {
        true => Ok(vec![Rendered {
            text: whole,
            answers: in_whole,
        }]),
        false => Ok(alone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: [(&str, &str); 5] = [
        ("user", "a?"),
        ("assistant", "<t>hm</t>A."),
        ("user", "b?"),
        ("assistant", "<t>so</t>B."),
        ("user", "thanks"),
    ];

    /// The texts that a template writes, with the answers in brackets.
    fn marked(template: fn(&[Message], bool) -> String) -> Result<Vec<String>, String> {
        let message = |(role, content): (&str, &str)| Message {
            role: role.into(),
            content: content.into(),
        };
        let text = |messages: &[Message], prompt| Ok(template(messages, prompt));
        let rendered = rendered(&CONVERSATION.map(message), text)?;
        let mark = |r: Rendered| {
            let mut text = r.text;
            for answer in r.answers.iter().rev() {
                text.insert(answer.end, ']');
                text.insert(answer.start, '[');
            }
            text
        };
        Ok(rendered.into_iter().map(mark).collect())
    }

    #[test]
    fn answers_with_their_ends_are_learned_and_the_rest_after_the_last_is_left_out() {
        let texts = marked(|messages, prompt| {
            let turn = |m: &Message| match m.role.as_str() {
                "user" => format!("U:{}|", m.content),
                _ => format!("A:{}</s>", m.content),
            };
            let text: String = messages.iter().map(turn).collect();
            text + if prompt { "A:" } else { "" }
        });
        let expected = "U:a?|A:[<t>hm</t>A.</s>]U:b?|A:[<t>so</t>B.</s>]";
        assert_eq!(texts.unwrap(), [expected]);
    }

    #[test]
    fn a_template_that_drops_thoughts_gives_a_text_per_answer() {
        let texts = marked(|messages, prompt| {
            let turn = |(i, m): (usize, &Message)| {
                let is_last = i + 1 == messages.len();
                let shown = m.content.split("</t>").last().filter(|_| !is_last);
                format!("{}:{};", &m.role[..1], shown.unwrap_or(&m.content))
            };
            let text: String = messages.iter().enumerate().map(turn).collect();
            text + if prompt { "a:" } else { "" }
        });
        let expected = ["u:a?;a:[<t>hm</t>A.;]", "u:a?;a:A.;u:b?;a:[<t>so</t>B.;]"];
        assert_eq!(texts.unwrap(), expected);
    }

    #[test]
    fn an_answer_that_no_prompt_leads_to_is_refused() {
        let texts = marked(|messages, prompt| {
            let turn = |m: &Message| format!("{}{}", m.role, m.content);
            let text: String = messages.iter().map(turn).collect();
            text + if prompt { "[answer]" } else { "" }
        });
        let why = texts.unwrap_err();
        assert!(why.contains("message 2"), "{why}");
    }
}
