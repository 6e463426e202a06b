//! The arguments that say what an answer keeps to.

use std::path::PathBuf;

use sterna_runtime::{Constraint, Model, Tokenizer};

#[derive(clap::Args)]
#[group(id = "rule", multiple = false)]
#[command(next_help_heading = "Form of the answer")]
pub struct Args {
    /// Write JSON that keeps to the JSON schema in a file.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Write a text that a regular expression matches as a whole.
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Write a text of the grammar in a file, in Lark's syntax.
    ///
    /// The grammar begins with the rule `start`.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl Args {
    /// The constraint of an answer, if one is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, and a rule that cannot be enforced in full.
    #[cfg(feature = "grammar")]
    pub fn constraint(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Option<Box<dyn Constraint>>> {
        let Some(rule) = self.rule()? else {
            return Ok(None);
        };
        let grammars = sterna_grammar::Grammars::new(tokenizer, model.config().vocab_size)?;
        let compiled = grammars.compile(&rule);
        Ok(Some(compiled.map_err(|e| {
            crate::exit::Usage(self.named(&e.to_string()))
        })?))
    }

    /// This program was built without grammars.
    ///
    /// # Errors
    /// Any of these flags.
    #[cfg(not(feature = "grammar"))]
    pub fn constraint(
        &self,
        _: &Model,
        _: &Tokenizer,
    ) -> anyhow::Result<Option<Box<dyn Constraint>>> {
        let is_asked = self.schema.is_some() || self.regex.is_some() || self.grammar.is_some();
        match is_asked {
            true => Err(crate::exit::Usage(
                "--schema, --regex and --grammar need a program that was built with the feature \
                 `grammar`"
                    .into(),
            )
            .into()),
            false => Ok(None),
        }
    }

    #[cfg(feature = "grammar")]
    fn rule(&self) -> anyhow::Result<Option<sterna_grammar::Rule>> {
        use sterna_grammar::Rule;

        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|e| crate::exit::BadInput(format!("{}: {e}", path.display())))
        };
        if let Some(path) = &self.schema {
            let text = read(path)?;
            let schema = sterna_ternary::json::parse(text.as_bytes()).map_err(|e| {
                crate::exit::BadInput(format!("{}: expected JSON: {e}", path.display()))
            })?;
            let unknown = sterna_grammar::unknown_keywords(&schema);
            if !unknown.is_empty() {
                crate::output::warning!(
                    "{}: these keywords are not of JSON Schema and have no effect: {}",
                    path.display(),
                    unknown.join(", ")
                );
            }
            return Ok(Some(Rule::JsonSchema(schema)));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(Rule::Lark(read(path)?)));
        }
        Ok(self.regex.clone().map(Rule::Regex))
    }

    /// An error with the file that it is about.
    #[cfg(feature = "grammar")]
    fn named(&self, error: &str) -> String {
        match self.schema.as_ref().or(self.grammar.as_ref()) {
            Some(path) => format!("{}: {error}", path.display()),
            None => format!("--regex: {error}"),
        }
    }
}
