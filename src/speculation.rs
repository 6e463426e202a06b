//! The arguments that let next tokens be guessed.

use std::path::PathBuf;

use sterna_runtime::draft::check_tokens;
use sterna_runtime::{Drafter, Generation, Lookup, Model, ModelDrafter, Pace, Tokenizer};

use crate::exit::Usage;

#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Speculation")]
pub struct Args {
    /// Guess next tokens from the text.
    ///
    /// What followed the same words before is computed together with the next token. Answers that
    /// repeat parts of their prompt are faster; no answer changes.
    #[arg(long)]
    lookup: bool,
    /// Let a small model of the same tokens guess next tokens.
    ///
    /// A model like MODEL; `sterna train --teacher` makes one. No answer changes.
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
}

/// What guesses next tokens.
pub struct Guessing {
    lookup: bool,
    draft: Option<Model>,
}

impl Args {
    /// Opens the draft model.
    ///
    /// # Errors
    /// It cannot be opened, or its tokens are not those of the model.
    pub fn open(&self, model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Guessing> {
        let Some(path) = &self.draft else {
            let (lookup, draft) = (self.lookup, None);
            return Ok(Guessing { lookup, draft });
        };
        let options = sterna_runtime::Options {
            threads: Some(model.threads()),
            kernels: Some(model.kernels()),
            kv_type: model.kv_type(),
            ..Default::default()
        };
        let draft = Model::open(&crate::packed::packed(path)?, options)?;
        let sizes = [model, &draft].map(|model| model.config().vocab_size);
        let checked = check_tokens(tokenizer, &draft.tokenizer()?, sizes);
        checked.map_err(|error| Usage(format!("--draft {}: {error}", path.display())))?;
        let (lookup, draft) = (self.lookup, Some(draft));
        Ok(Guessing { lookup, draft })
    }
}

impl Guessing {
    /// The same generation with guesses, for an answer after `prompt` tokens in a context of
    /// `capacity`.
    ///
    /// # Errors
    /// The memory of the draft model's cache.
    pub fn add_to<'a>(
        &'a self,
        generation: Generation<'a>,
        prompt: usize,
        capacity: usize,
    ) -> anyhow::Result<Generation<'a>> {
        let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
        if self.lookup {
            drafters.push(Box::new(Lookup::new(prompt)));
        }
        if let Some(draft) = &self.draft {
            drafters.push(Box::new(ModelDrafter::new(draft, capacity)?));
        }
        Ok(generation.with_drafters(drafters, Pace::new()))
    }
}

/// Tells that a draft model failed, and that the answer did without it.
pub fn warn(generation: &mut Generation) {
    if let Some(error) = generation.take_draft_error() {
        crate::output::warning!("the draft model failed and guessed no more: {error}");
    }
}
