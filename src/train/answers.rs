//! Conversations as a checkpoint's chat template writes them, with the places where the assistant speaks.
//!
//! An answer begins where the text of all that came before it ends, as a chat would prompt for it, and ends where the
//! text of the conversation up to it does: the token that ends the turn is learned too. A template that writes an
//! earlier turn otherwise once later ones follow (Qwen3 drops what was thought) has no such places in the whole; then
//! each answer is a text of its own, with all that came before it.

use std::sync::Arc;

use serde_json::Value;
use sterna_datasets::Message;
use sterna_datasets::chat::{Render, Rendered};
use sterna_datasets::conversation::ASSISTANT;
use sterna_runtime::ChatTemplate;

use crate::exit::BadInput;

/// The renderer of a checkpoint's files; none if they have no template.
pub fn renderer(files: &[(String, Vec<u8>)]) -> anyhow::Result<Option<Arc<Render>>> {
    let file = |name: &str| files.iter().find(|(n, _)| n == name);
    let settings = match file("tokenizer_config.json") {
        Some((name, bytes)) => {
            serde_json::from_slice(bytes).map_err(|e| BadInput(format!("{name}: {e}")))?
        }
        None => Value::Null,
    };
    let template = file("chat_template.jinja").map(|(_, bytes)| &**bytes);
    let template = match ChatTemplate::from_files(template, &settings) {
        Err(sterna_runtime::Error::NoChatTemplate) => return Ok(None),
        template => template?,
    };
    let render = move |messages: &[Message]| render(&template, messages);
    Ok(Some(Arc::new(render)))
}

fn render(template: &ChatTemplate, messages: &[Message]) -> Result<Vec<Rendered>, String> {
    let of_runtime = |m: &Message| sterna_runtime::Message::new(&m.role, &m.content);
    let messages: Vec<_> = messages.iter().map(of_runtime).collect();
    let text = |messages: &[_], prompt| {
        let text = template.render(messages, prompt);
        text.map_err(|e| e.to_string())
    };
    let is_answer = |i: &usize| messages[*i].role == ASSISTANT;
    let answers: Vec<usize> = (0..messages.len()).filter(is_answer).collect();
    let last = answers.last().ok_or("there is no answer in it")?;
    let whole = text(&messages[..=*last], false)?;
    let mut in_whole = Vec::new();
    let mut alone = Vec::new();
    for i in &answers {
        // What a template asks for before the first message is no prompt.
        let before = if *i == 0 {
            String::new()
        } else {
            text(&messages[..*i], true)?
        };
        let up_to = text(&messages[..=*i], false)?;
        if !up_to.starts_with(&before) {
            return Err(format!(
                "message {} does not begin where the prompt for it ends, so that no chat would meet it like this",
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
    use serde_json::json;

    use super::*;

    const CONVERSATION: [(&str, &str); 5] = [
        ("user", "a?"),
        ("assistant", "<t>hm</t>A."),
        ("user", "b?"),
        ("assistant", "<t>so</t>B."),
        ("user", "thanks"),
    ];

    /// Texts with what is learned in brackets.
    fn marked(source: &str) -> Result<Vec<String>, String> {
        let settings = json!({"eos_token": "</s>"});
        let template = ChatTemplate::from_files(Some(source.as_bytes()), &settings).unwrap();
        let message = |(role, content): (&str, &str)| Message {
            role: role.into(),
            content: content.into(),
        };
        let rendered = render(&template, &CONVERSATION.map(message))?;
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
    fn answers_with_their_ends_are_learned_and_what_follows_the_last_is_left_out() {
        let template = "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}\\n\
            {% else %}A:{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}\
            {% if add_generation_prompt %}A:{% endif %}";
        let template = template.replace("\\n", "|");
        let expected = "U:a?|A:[<t>hm</t>A.</s>]U:b?|A:[<t>so</t>B.</s>]";
        assert_eq!(marked(&template).unwrap(), [expected]);
    }

    #[test]
    fn a_template_that_forgets_makes_a_text_of_each_answer() {
        let template = "{% for m in messages %}{{ m.role[0] }}:\
            {% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</t>')[-1] }}{% endif %};\
            {% endfor %}{% if add_generation_prompt %}a:{% endif %}";
        let expected = ["u:a?;a:[<t>hm</t>A.;]", "u:a?;a:A.;u:b?;a:[<t>so</t>B.;]"];
        assert_eq!(marked(template).unwrap(), expected);
    }

    #[test]
    fn an_answer_that_no_prompt_leads_to_is_refused() {
        let template = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}\
            {% if add_generation_prompt %}[answer]{% endif %}";
        let why = marked(template).unwrap_err();
        assert!(why.contains("message 2"), "{why}");
    }
}
