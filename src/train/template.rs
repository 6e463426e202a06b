//! `template` in [data] of a recipe: the chat template of a model that is trained from scratch.

use anyhow::Context;
use serde_json::json;
use sterna_datasets::tokenizer::{BOS, EOS};
use sterna_datasets::{Template, template};
use sterna_train::{Chat, Recipe};

use crate::exit::BadInput;
use crate::train::answers;

/// Opens the template that the recipe names, or the default one, if the recipe needs one.
pub fn open(recipe: &Recipe) -> anyhow::Result<Option<Chat>> {
    if !recipe.needs_template() {
        return Ok(None);
    }
    let name = recipe.data.template.clone();
    let name = name.unwrap_or(template::DEFAULT.into());
    let template = match name.ends_with(".jinja") {
        true => Template {
            source: std::fs::read_to_string(&name).with_context(|| name.clone())?,
            special_tokens: recipe.data.special_tokens.clone().unwrap_or_default(),
        },
        false => Template::named(&name).ok_or_else(|| {
            BadInput(format!(
                "[data] `template` is {name:?}, expected one of {}, or the path of a .jinja file",
                Template::names()
            ))
        })?,
    };
    chat(&name, template).map(Some)
}

/// A template with its renderer, and the special token that ends an answer.
fn chat(name: &str, template: Template) -> anyhow::Result<Chat> {
    let settings = json!({"bos_token": BOS, "eos_token": EOS});
    let files = [
        (
            "chat_template.jinja".to_owned(),
            template.source.clone().into_bytes(),
        ),
        (
            "tokenizer_config.json".to_owned(),
            settings.to_string().into_bytes(),
        ),
    ];
    let opened = answers::template(&files)?.expect("the files hold a template");
    let wrong = |why: String| BadInput(format!("chat template {name}: {why}"));
    let after = opened.after_answer().map_err(|e| wrong(e.to_string()))?;
    // The text after the answer begins with the token that ends it.
    let special_tokens = template.special_tokens.iter().map(String::as_str);
    let special_tokens: Vec<&str> = special_tokens.chain([EOS]).collect();
    let end_of_turn = after.iter().find_map(|after| {
        let mut tokens = special_tokens.iter();
        tokens.find(|token| after.trim_start().starts_with(**token))
    });
    let end_of_turn = end_of_turn.map(|token| token.to_string()).ok_or_else(|| {
        wrong(format!(
            "an answer is followed by {:?}, expected a special token, by which a chat \
             recognizes the end of the answer; name it in [data] `special_tokens`",
            after[0]
        ))
    })?;
    Ok(Chat {
        template,
        end_of_turn,
        renderer: answers::renderer(opened),
    })
}
