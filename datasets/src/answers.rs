//! Conversations as a chat template writes them, with the places where the assistant speaks.
//!
//! An answer begins where the text of everything before it ends, as a chat would prompt for it, and
//! ends where the text of the conversation up to it ends: the token that ends the turn is learned
//! too. Some templates write an earlier turn differently once later turns follow (Qwen3 drops its
//! thoughts). Such an answer is not a part of the whole text. Then each answer gets a text of its
//! own, with all messages before it.
//!
//! An answer is read and not learned if its record says so, or if the template writes nothing of it
//! but the frame of a turn: a model that learns such answers learns to be silent.

use std::ops::Range;

use serde_json::Value;

use crate::conversation::{Conversation, Fields, Message};

/// One text that a chat template writes for a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text, with special tokens by their names.
    pub text: String,
    /// The byte ranges of the text that the assistant says and that are learned.
    pub answers: Vec<Range<usize>>,
    /// The byte ranges that the assistant says and that are not learned.
    pub read_only: Vec<Range<usize>>,
}

impl Rendered {
    /// The byte ranges between those that are not learned.
    pub fn all_but_read_only(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        for gap in &self.read_only {
            ranges.push(at..gap.start);
            at = gap.end;
        }
        ranges.push(at..self.text.len());
        ranges.retain(|range| !range.is_empty());
        ranges
    }

    /// The text with `⟦` and `⟧` around what is learned.
    pub fn marked(&self) -> String {
        let mut text = self.text.clone();
        for answer in self.answers.iter().rev() {
            text.insert(answer.end, '⟧');
            text.insert(answer.start, '⟦');
        }
        text
    }
}

/// The texts of a conversation, and what is not in them.
///
/// There are several texts if the template changes earlier turns once later ones follow. Then each
/// text holds one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedConversation {
    /// The texts that have something to learn.
    pub texts: Vec<Rendered>,
    /// Answers that are not learned because the template writes nothing of them.
    pub empty: u64,
    /// Answers that are not learned because the record says so.
    pub read_only: u64,
    /// Keys of messages and variables that the template does not name.
    pub unnamed: Vec<String>,
}

/// Writes messages, with variables such as `tools`; the last argument asks for the beginning of an
/// answer after them.
type Write = dyn Fn(&[Message], &Fields, bool) -> Result<String, String> + Send + Sync;
/// Whether the template names a key.
type Names = dyn Fn(&str) -> bool + Send + Sync;

/// A chat template. Another crate runs it, because a template is a program.
pub struct Renderer {
    write: Box<Write>,
    names: Box<Names>,
}

impl Renderer {
    /// A template by its two functions: `write` renders messages with variables, its last argument
    /// asks for the beginning of an answer after them; `names` says whether the template reads a
    /// key.
    pub fn new(
        write: impl Fn(&[Message], &Fields, bool) -> Result<String, String> + Send + Sync + 'static,
        names: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            write: Box::new(write),
            names: Box::new(names),
        }
    }

    /// The texts of a conversation with the byte ranges of its answers. What follows the last
    /// answer is left out.
    ///
    /// # Errors
    /// What the template refuses, a conversation without an answer, and an answer that does not
    /// begin where the prompt for it ends.
    pub fn render(&self, conversation: &Conversation) -> Result<RenderedConversation, String> {
        let write =
            |messages: &[Message], prompt| (self.write)(messages, &conversation.variables, prompt);
        let messages = without_printed_none(&conversation.messages, &write)?;
        let answers = Answers::of(&messages, &write)?;
        let mut found = answers.texts();
        found.unnamed = self.unnamed(conversation);
        Ok(found)
    }

    fn unnamed(&self, conversation: &Conversation) -> Vec<String> {
        let fields = conversation.messages.iter().flat_map(|m| m.fields.keys());
        let fields = fields.filter(|key| !["role", "content"].contains(&key.as_str()));
        let keys = fields.chain(conversation.variables.keys());
        let mut keys: Vec<String> = keys.filter(|key| !(self.names)(key)).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The messages as the template should get them. Where it would print the content null as the word
/// `None`, the content is empty.
fn without_printed_none(
    messages: &[Message],
    write: &impl Fn(&[Message], bool) -> Result<String, String>,
) -> Result<Vec<Message>, String> {
    let mut messages = messages.to_vec();
    let is_null = |m: &Message| m.fields.get("content").is_some_and(Value::is_null);
    if !messages.iter().any(is_null) {
        return Ok(messages);
    }
    let given = messages.clone();
    for message in messages.iter_mut().filter(|m| is_null(m)) {
        message.fields["content"] = "".into();
    }
    let words = |text: &str| text.matches("None").count();
    Ok(match (write(&given, false), write(&messages, false)) {
        (Ok(with), Ok(without)) if words(&with) > words(&without) => messages,
        (Err(_), Ok(_)) => messages,
        _ => given,
    })
}

/// An answer in the text of the conversation up to it.
struct Answer {
    /// The text, where the whole text does not begin with it.
    up_to: Option<String>,
    range: Range<usize>,
    is_learned: bool,
    /// Whether the template writes something of it.
    is_shown: bool,
}

impl Answer {
    fn has_loss(&self) -> bool {
        self.is_learned && self.is_shown
    }
}

/// The answers of a conversation.
struct Answers {
    /// The text up to the end of the last answer.
    whole: String,
    each: Vec<Answer>,
}

impl Answers {
    fn of(
        messages: &[Message],
        write: &impl Fn(&[Message], bool) -> Result<String, String>,
    ) -> Result<Self, String> {
        let places = (0..messages.len()).filter(|i| messages[*i].is_answer());
        let places: Vec<usize> = places.collect();
        let last = places.last().ok_or("there is no answer in it")?;
        let whole = write(&messages[..=*last], false)?;
        let mut each = Vec::new();
        for i in places {
            // A template may write something before the first message; that is not a prompt.
            let before = match i {
                0 => String::new(),
                _ => write(&messages[..i], true)?,
            };
            let up_to = write(&messages[..=i], false)?;
            if !up_to.starts_with(&before) {
                return Err(format!(
                    "message {} does not begin where the prompt for it ends, so no chat would \
                     produce it",
                    i + 1
                ));
            }
            let range = before.len()..up_to.len();
            let content = messages[i].content().trim();
            let is_shown = !content.is_empty() && up_to[range.clone()].contains(content)
                || writes_more_than_a_frame(&messages[..=i], &up_to, write);
            each.push(Answer {
                is_learned: messages[i].is_learned,
                is_shown,
                up_to: (!whole.starts_with(&up_to)).then_some(up_to),
                range,
            });
        }
        Ok(Self { whole, each })
    }

    /// One text with all answers, or one per answer if the template changes earlier ones.
    fn texts(self) -> RenderedConversation {
        let count = |is_it: fn(&Answer) -> bool| self.each.iter().filter(|a| is_it(a)).count();
        let empty = count(|answer| answer.is_learned && !answer.is_shown) as u64;
        let read_only = count(|answer| !answer.is_learned) as u64;
        let texts = if self.each.iter().all(|answer| answer.up_to.is_none()) {
            let mut text = Rendered::default();
            for answer in self.each {
                match answer.has_loss() {
                    true => text.answers.push(answer.range),
                    false => text.read_only.push(answer.range),
                }
            }
            text.text = self.whole;
            vec![text]
        } else {
            // Where an earlier answer stands in a later text is not known.
            let has_unlearned = !self.each.iter().all(Answer::has_loss);
            let learned = self.each.into_iter().filter(Answer::has_loss);
            let alone = learned.map(|answer| Rendered {
                read_only: has_unlearned
                    .then_some(0..answer.range.start)
                    .into_iter()
                    .collect(),
                text: match answer.up_to {
                    Some(text) => text,
                    None => self.whole[..answer.range.end].to_owned(),
                },
                answers: vec![answer.range],
            });
            alone.collect()
        };
        let has_answers = |text: &Rendered| !text.answers.is_empty();
        RenderedConversation {
            texts: texts.into_iter().filter(has_answers).collect(),
            empty,
            read_only,
            unnamed: Vec::new(),
        }
    }
}

/// Whether the text of the last message differs from that of a message of the same role that says
/// nothing.
fn writes_more_than_a_frame(
    messages: &[Message],
    text: &str,
    write: &impl Fn(&[Message], bool) -> Result<String, String>,
) -> bool {
    let mut bare = messages.to_vec();
    let last = bare.last_mut().expect("it ends with an answer");
    let is_blank = last.content().trim().is_empty();
    last.fields
        .retain(|key, _| key == "role" || key == "content" && is_blank);
    if !is_blank {
        last.fields.insert("content".into(), "".into());
    }
    // A template that refuses an empty answer shows what this one has.
    write(&bare, false).map_or(true, |bare| bare != text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONVERSATION: [(&str, &str); 5] = [
        ("user", "a?"),
        ("assistant", "<t>hm</t>A."),
        ("user", "b?"),
        ("assistant", "<t>so</t>B."),
        ("user", "thanks"),
    ];

    /// The texts that a template writes, with the answers marked.
    fn marked(template: fn(&[Message], bool) -> String) -> Result<Vec<String>, String> {
        let messages = CONVERSATION.map(|(role, content)| Message::new(role, content));
        let renderer = Renderer::new(
            move |messages, _, prompt| Ok(template(messages, prompt)),
            |_| true,
        );
        let rendered = renderer.render(&Conversation::of(messages.into()))?;
        Ok(rendered.texts.iter().map(Rendered::marked).collect())
    }

    #[test]
    fn answers_with_their_ends_are_learned_and_the_rest_after_the_last_is_left_out() {
        let texts = marked(|messages, prompt| {
            let turn = |m: &Message| match m.role() {
                "user" => format!("U:{}|", m.content()),
                _ => format!("A:{}</s>", m.content()),
            };
            let text: String = messages.iter().map(turn).collect();
            text + if prompt { "A:" } else { "" }
        });
        let expected = "U:a?|A:⟦<t>hm</t>A.</s>⟧U:b?|A:⟦<t>so</t>B.</s>⟧";
        assert_eq!(texts.unwrap(), [expected]);
    }

    #[test]
    fn a_template_that_drops_thoughts_gives_a_text_per_answer() {
        let texts = marked(|messages, prompt| {
            let turn = |(i, m): (usize, &Message)| {
                let is_last = i + 1 == messages.len();
                let shown = m.content().split("</t>").last().filter(|_| !is_last);
                format!("{}:{};", &m.role()[..1], shown.unwrap_or(m.content()))
            };
            let text: String = messages.iter().enumerate().map(turn).collect();
            text + if prompt { "a:" } else { "" }
        });
        let expected = ["u:a?;a:⟦<t>hm</t>A.;⟧", "u:a?;a:A.;u:b?;a:⟦<t>so</t>B.;⟧"];
        assert_eq!(texts.unwrap(), expected);
    }

    #[test]
    fn an_answer_that_no_prompt_leads_to_is_refused() {
        let texts = marked(|messages, prompt| {
            let turn = |m: &Message| format!("{}{}", m.role(), m.content());
            let text: String = messages.iter().map(turn).collect();
            text + if prompt { "[answer]" } else { "" }
        });
        let why = texts.unwrap_err();
        assert!(why.contains("message 2"), "{why}");
    }

    /// A template that writes calls of tools, thoughts, and null as Python does.
    fn with_tools(messages: &[Message], variables: &Fields, prompt: bool) -> String {
        let mut text = match variables.get("tools") {
            Some(tools) => format!("T:{tools}|"),
            None => String::new(),
        };
        for message in messages {
            let content = match &message.fields["content"] {
                Value::Null => "None",
                content => content.as_str().unwrap(),
            };
            let calls = message.fields.get("tool_calls").map(Value::to_string);
            let calls = calls.unwrap_or_default();
            text += &format!("{}:{content}{calls};", &message.role()[..1]);
        }
        text + if prompt { "a:" } else { "" }
    }

    fn render(record: Value) -> RenderedConversation {
        let fields = |m: &Value| m.as_object().unwrap().clone();
        let message = |m: &Value| Message {
            is_learned: m.get("weight").is_none(),
            fields: fields(m),
        };
        let messages = record["messages"].as_array().unwrap().iter().map(message);
        let mut conversation = Conversation::of(messages.collect());
        conversation.variables = fields(&record["variables"]);
        let renderer = Renderer::new(
            |messages, variables, prompt| Ok(with_tools(messages, variables, prompt)),
            |key| ["tools", "tool_calls"].contains(&key),
        );
        renderer.render(&conversation).unwrap()
    }

    #[test]
    fn templates_get_every_field_and_keys_that_they_do_not_name_are_listed() {
        let found = render(json!({
            "variables": {"tools": [1], "documents": [2]},
            "messages": [
                {"role": "user", "content": "q", "name": "Ann"},
                {"role": "assistant", "content": "", "tool_calls": [3]},
                {"role": "tool", "content": "r"},
                {"role": "assistant", "content": "a", "thinking": "hm"},
            ],
        }));
        assert_eq!(found.texts[0].marked(), "T:[1]|u:q;a:⟦[3];⟧t:r;a:⟦a;⟧");
        assert_eq!(found.unnamed, ["documents", "name", "thinking"]);
        assert_eq!((found.empty, found.read_only), (0, 0));
    }

    #[test]
    fn answers_without_text_and_those_of_weight_zero_are_read_only() {
        let found = render(json!({"variables": {}, "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "calls": [3]},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "bad", "weight": 0},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
        ]}));
        // Null is not learned, neither as nothing nor as the word.
        let text = &found.texts[0];
        assert_eq!(text.marked(), "u:q;a:;u:q;a:bad;u:q;a:⟦a;⟧");
        assert_eq!((found.empty, found.read_only), (1, 1));
        let everything = text.all_but_read_only();
        let everything: String = everything.into_iter().map(|r| &text.text[r]).collect();
        assert_eq!(everything, "u:q;a:u:q;a:u:q;a:a;");
        let nothing = render(json!({"variables": {}, "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": " "},
        ]}));
        assert_eq!((nothing.texts.len(), nothing.empty), (0, 1));
    }
}
