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

#[cfg(not(feature = "grammar"))]
impl Args {
    /// No constraint.
    ///
    /// # Errors
    /// Any of these flags: this program was built without grammars.
    pub fn constraint(
        &self,
        _: &Model,
        _: &Tokenizer,
    ) -> anyhow::Result<Option<Box<dyn Constraint>>> {
        let is_asked = self.schema.is_some() || self.regex.is_some() || self.grammar.is_some();
        match is_asked {
            true => Err(crate::exit::not_built_with("the form of an answer", "grammar").into()),
            false => Ok(None),
        }
    }
}

#[cfg(feature = "grammar")]
impl Args {
    /// The constraint of an answer, if one is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, and a rule that cannot be enforced in full.
    pub fn constraint(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Option<Box<dyn Constraint>>> {
        let Some((source, rule)) = self.rule()? else {
            return Ok(None);
        };
        let grammars = sterna_grammar::Grammars::new(tokenizer, model.config().vocab_size)?;
        let compiled = grammars.compile(&rule);
        let compiled = compiled.map_err(|e| crate::exit::Usage(format!("{source}: {e}")))?;
        Ok(Some(compiled))
    }

    /// The rule, and where it comes from.
    fn rule(&self) -> anyhow::Result<Option<(String, sterna_grammar::Rule)>> {
        use crate::exit::BadInput;
        use sterna_grammar::Rule;

        if let Some(regex) = &self.regex {
            return Ok(Some(("--regex".into(), Rule::Regex(regex.clone()))));
        }
        let Some(path) = self.schema.as_ref().or(self.grammar.as_ref()) else {
            return Ok(None);
        };
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| BadInput(format!("{source}: {e}")))?;
        if self.grammar.is_some() {
            return Ok(Some((source, Rule::Lark(text))));
        }
        let schema = sterna_ternary::json::parse(text.as_bytes())
            .map_err(|e| BadInput(format!("{source}: expected JSON: {e}")))?;
        let unknown = sterna_grammar::unknown_keywords(&schema).join(", ");
        if !unknown.is_empty() {
            crate::output::warning!(
                "{source}: these keywords have no effect by JSON Schema: {unknown}"
            );
        }
        Ok(Some((source, Rule::JsonSchema(schema))))
    }
}
