//! Answers that keep to a JSON schema, a regular expression or a grammar.
//!
//! [`Grammars`] holds the vocabulary of a model. [`Grammars::compile`] makes a
//! [`Constraint`] of a [`Rule`], which the runtime asks before each token which ones may come next.
//! Parsing and masks are the work of the crate `llguidance`.
//!
//! Rules fail closed: what cannot be enforced is an error that names the place. Keywords of a
//! schema that are unknown to JSON Schema have no meaning there; [`unknown_keywords`] lists them.
#![deny(missing_docs)]

mod schema;
mod vocabulary;

use std::fmt::{self, Debug};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, ParserFactory, TokenParser};
use serde_json::{Value, json};
use sterna_runtime::{Allowed, Constraint, Tokenizer};

pub use schema::unknown_keywords;

/// Most bytes of a rule.
pub const LARGEST: usize = 256 << 10;
/// States of the lexer take up to 2 kB each: this bounds them to some 100 MB.
const LEXER_STATES: usize = 50_000;

/// What an answer keeps to.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(Value),
    /// A text that a regular expression matches as a whole, in the syntax of the crate `regex`.
    Regex(String),
    /// A text of a grammar in llguidance's variant of Lark's syntax; it begins with the rule
    /// `start`.
    Lark(String),
}

/// A rule that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too large.
    #[error("the {what} has {found} bytes, expected at most {LARGEST}")]
    TooLarge {
        /// What kind of rule it is.
        what: &'static str,
        /// Its size.
        found: usize,
    },
    /// A keyword of a schema, or its value.
    #[error("the JSON schema at {pointer}: {why}")]
    Schema {
        /// The place as a JSON pointer, `#` in front.
        pointer: String,
        /// What is wrong there.
        why: String,
    },
    /// A regular expression or a grammar.
    #[error("the {what}: {why}")]
    Text {
        /// What kind of rule it is.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The vocabulary.
    #[error("the tokenizer cannot be used with rules: {0}")]
    Vocabulary(String),
}

/// Rules over the vocabulary of one model.
pub struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// Reads the bytes of every token; this takes some tenths of a second for a large vocabulary.
    ///
    /// # Errors
    /// [`Error::Vocabulary`].
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Grammars, Error> {
        let vocabulary = vocabulary::of(tokenizer, vocab_size)?;
        let factory = ParserFactory::new_simple(&vocabulary);
        let mut factory = factory.map_err(|e| Error::Vocabulary(e.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = LEXER_STATES;
        limits.verbose_errors = false;
        Ok(Grammars { factory })
    }

    /// The constraint of a rule, at the beginning of an answer.
    ///
    /// # Errors
    /// A rule that cannot be enforced in full.
    pub fn compile(&self, rule: &Rule) -> Result<Box<dyn Constraint>, Error> {
        rule.check_size()?;
        let follower = match rule {
            Rule::JsonObject => self.follower(of_schema(json!({"type": "object"}))),
            Rule::JsonSchema(schema) => {
                schema::check(schema)?;
                let follower = self.follower(of_schema(schema.clone()));
                return match follower {
                    Ok(follower) => Ok(Box::new(follower)),
                    Err(why) => Err(self.guilty(schema, why)),
                };
            }
            Rule::Regex(regex) => self.follower(TopLevelGrammar::from_regex(regex)),
            Rule::Lark(text) => self.follower(TopLevelGrammar::from_lark(text.clone())),
        };
        let what = rule.what();
        match follower {
            Ok(follower) => Ok(Box::new(follower)),
            Err(why) => Err(Error::Text { what, why }),
        }
    }

    fn follower(&self, grammar: TopLevelGrammar) -> Result<Follower, String> {
        let parser = self.factory.create_parser(grammar);
        let spec = |parser: &TokenParser| parser.parser.grammar().lexer_spec().can_rollback();
        let can_rollback = parser.as_ref().is_ok_and(spec);
        let mut matcher = Matcher::new(parser);
        // The first mask shows errors that the parser finds only then.
        matcher.compute_mask().map_err(|e| short(&e.to_string()))?;
        match matcher.grammar_warnings().into_iter().next() {
            Some(warning) => Err(warning),
            None => Ok(Follower {
                matcher,
                can_rollback,
            }),
        }
    }

    /// The error of the smallest part of a schema that cannot be enforced by itself.
    fn guilty(&self, schema: &Value, why: String) -> Error {
        let fails = |part: &Value| self.follower(of_schema(part.clone())).err();
        let (pointer, why) = schema::smallest(schema, why, fails);
        Error::Schema { pointer, why }
    }
}

impl Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Rule {
    /// One of these texts, and nothing else.
    pub fn one_of(texts: &[String]) -> Rule {
        let escaped = |text: &String| -> String {
            let escape = |c: char| match c.is_alphanumeric() {
                true => c.to_string(),
                false => format!("\\x{{{:x}}}", u32::from(c)),
            };
            text.chars().map(escape).collect()
        };
        let texts: Vec<String> = texts.iter().map(escaped).collect();
        Rule::Regex(texts.join("|"))
    }

    /// What kind of rule it is.
    pub fn what(&self) -> &'static str {
        match self {
            Rule::JsonObject | Rule::JsonSchema(_) => "JSON schema",
            Rule::Regex(_) => "regular expression",
            Rule::Lark(_) => "grammar",
        }
    }

    fn check_size(&self) -> Result<(), Error> {
        let (what, found) = match self {
            Rule::JsonObject => return Ok(()),
            Rule::JsonSchema(schema) => (self.what(), schema.to_string().len()),
            Rule::Regex(text) | Rule::Lark(text) => (self.what(), text.len()),
        };
        match found > LARGEST {
            true => Err(Error::TooLarge { what, found }),
            false => Ok(()),
        }
    }
}

/// Between the parts of JSON: nothing, a space, or a new line with its indentation. A weak model
/// would else fill an answer with spaces.
const BETWEEN: &str = r" |\n[ \t]{0,20}";

fn of_schema(mut schema: Value) -> TopLevelGrammar {
    if let Value::Object(keywords) = &mut schema {
        let settings = json!({"whitespace_pattern": BETWEEN});
        keywords.insert("x-guidance".into(), settings);
    }
    TopLevelGrammar::from_json_schema(schema)
}

/// An error of the parser in one line: its first one, and after a text with a mark below it what
/// the mark means.
fn short(error: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(meaning) => format!("{first} {meaning}"),
        None => first.to_owned(),
    }
}

/// A place in a rule.
struct Follower {
    matcher: Matcher,
    /// Whether its lexemes can be taken back: not those that end where another text begins.
    can_rollback: bool,
}

impl Constraint for Follower {
    fn allow(&mut self, allowed: &mut Allowed) -> sterna_runtime::Result<()> {
        let mask: SimpleVob = self.matcher.compute_mask_or_eos().map_err(|e| broken(&e))?;
        allowed.insert_bits(mask.as_slice());
        Ok(())
    }

    fn accept(&mut self, id: u32) -> sterna_runtime::Result<()> {
        self.matcher.consume_token(id).map_err(|e| broken(&e))
    }

    fn rollback(&mut self, n: usize) -> sterna_runtime::Result<bool> {
        if self.can_rollback {
            self.matcher.rollback(n).map_err(|e| broken(&e))?;
        }
        Ok(self.can_rollback)
    }

    fn forced(&mut self) -> Vec<u32> {
        self.matcher.compute_ff_tokens()
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Follower {
            matcher: self.matcher.deep_clone(),
            can_rollback: self.can_rollback,
        })
    }
}

impl Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Follower").finish()
    }
}

fn broken(error: &impl fmt::Display) -> sterna_runtime::Error {
    sterna_runtime::Error::Constraint(short(&error.to_string()))
}
