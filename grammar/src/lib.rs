//! Answers that keep to a JSON schema, a regular expression or a grammar.
//!
//! [`Grammars`] holds the vocabulary of a model. [`Grammars::compile`] makes a
//! [`Constraint`] of a [`Rule`], which the runtime asks before each token which ones may come next.
//! Parsing and masks are the work of the crate `llguidance`.
//!
//! Rules of several threads are compiled at the same time. The parser turns its panics into
//! errors: with the first rule it puts a hook of panics before the one of the program, which is
//! still called for all others.
//!
//! Rules fail closed: what cannot be enforced is an error that names the place. Keywords of a
//! schema that are unknown to JSON Schema have no meaning there; [`unknown_keywords`] lists them.
#![deny(missing_docs)]

mod explain;
mod kept;
mod lark;
mod lower;
mod schema;
mod tools;
mod vocabulary;

use std::cell::Cell;
use std::fmt::{self, Debug};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{SimpleVob, TokTrie};
use llguidance::{Matcher, ParserFactory, TokenParser};
use serde_json::{Value, json};
use sterna_runtime::{Allowed, Constraint, Tokenizer};

use explain::{TOO_LARGE, explained, short};
pub use kept::KEPT;
use kept::Kept;
use lark::with_lowered_schemas;
use lower::lower;
use schema::smallest;
pub use schema::unknown_keywords;
pub use tools::Calls;

/// Most bytes of a JSON schema.
pub const LARGEST: usize = 256 << 10;
/// Most bytes of a regular expression or a grammar.
pub const LONGEST: usize = 64 << 10;
/// States of the lexer take up to 2 kB each: this bounds them to some 100 MB.
const LEXER_STATES: usize = 50_000;

/// Most levels of a schema, lists and objects in each other.
const DEEPEST: usize = 128;
/// Bytes of the stack on which a rule is compiled. Only what is used takes memory.
const STACK: usize = 64 << 20;

/// Most bytes of the parts of a schema that are tried to find the one that fails, and what a try
/// counts at least.
const TRIED: usize = 64 << 10;
const TRY: usize = 2 << 10;
/// Most symbols of a grammar.
const SYMBOLS: usize = 10_000;
/// Steps that the regular expressions of a rule may take before the first token, some 50 000 in a
/// millisecond.
const FUEL: u64 = 200_000;

/// Most steps of regular expressions, and most items of the grammar, for one mask. A mask ends
/// within some 10 ms, or the answer ends with an error.
const STEP: (u64, usize) = (60_000, 20_000);

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
    #[error("the {what} has {found} bytes, expected at most {most}; make it shorter")]
    TooLarge {
        /// What kind of rule it is.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size.
        most: usize,
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
    /// The thread that compiles a rule.
    #[error("no thread could be started to read the rule: {0}; try again later")]
    Thread(String),
    /// The vocabulary.
    #[error("the tokenizer cannot be used with rules: {0}")]
    Vocabulary(String),
}

/// Rules over the vocabulary of one model.
pub struct Grammars {
    factory: ParserFactory,
    kept: Kept,
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
        limits.max_grammar_size = SYMBOLS;
        limits.initial_lexer_fuel = FUEL;
        limits.step_lexer_fuel = STEP.0;
        limits.step_max_items = STEP.1;
        limits.verbose_errors = false;
        Ok(Grammars {
            factory,
            kept: Kept::default(),
        })
    }

    /// The constraint of a rule, at the beginning of an answer.
    ///
    /// The last [`KEPT`] rules are kept, so the same rule again costs a copy.
    ///
    /// # Errors
    /// A rule that cannot be enforced in full.
    pub fn compile(&self, rule: &Rule) -> Result<Box<dyn Constraint>, Error> {
        rule.check_size()?;
        self.kept_or(rule.key(), || self.make(rule))
    }

    /// The constraint with this key, which is made on a large stack if it is not kept.
    fn kept_or(
        &self,
        key: String,
        make: impl FnOnce() -> Result<Follower, Error> + Send,
    ) -> Result<Box<dyn Constraint>, Error> {
        if let Some(kept) = self.kept.find(&key) {
            return Ok(kept.fork());
        }
        let compiled = on_large_stack(make)?;
        Ok(self.kept.keep(key, compiled))
    }

    fn make(&self, rule: &Rule) -> Result<Follower, Error> {
        let what = rule.what();
        let of_text = |why| Error::Text { what, why };
        match rule {
            Rule::JsonObject => {
                let schema = json!({"type": "object"});
                self.follower(of_schema(schema)).map_err(of_text)
            }
            Rule::JsonSchema(schema) => {
                let (lowered, targets) = lower::with_targets(schema, "#")?;
                let tried = Cell::new(0);
                self.part(lowered, "#").map_err(|error| {
                    // Each part of a schema that is too large can be small.
                    if error.to_string().contains(TOO_LARGE) {
                        return error;
                    }
                    smallest(schema, &targets, error, |place| {
                        self.fails(schema, place, &tried)
                    })
                })
            }
            Rule::Regex(regex) => {
                let grammar = TopLevelGrammar::from_regex(regex);
                self.follower(grammar).map_err(of_text)
            }
            Rule::Lark(text) => {
                let grammar = TopLevelGrammar::from_lark(with_lowered_schemas(text)?);
                self.follower(grammar).map_err(of_text)
            }
        }
    }

    fn follower(&self, grammar: TopLevelGrammar) -> Result<Follower, String> {
        let parser = self.factory.create_parser(grammar);
        let spec = |parser: &TokenParser| parser.parser.grammar().lexer_spec().can_rollback();
        let can_rollback = parser.as_ref().is_ok_and(spec);
        let mut matcher = Matcher::new(parser);
        // The first mask shows errors that the parser finds only then.
        let mask = matcher.compute_mask();
        let mask = mask.map_err(|e| explained(&e.to_string()))?;
        // Some errors come with the first token.
        let mut trial = matcher.deep_clone();
        if let (false, Some(first)) = (matcher.is_stopped(), mask.first_bit_set()) {
            let first = trial.consume_token(first as u32);
            let second = first.and_then(|()| trial.compute_mask_or_eos());
            second.map_err(|e| explained(&e.to_string()))?;
        }
        match matcher.grammar_warnings().into_iter().next() {
            Some(warning) => Err(warning),
            None => Ok(Follower {
                matcher,
                can_rollback,
            }),
        }
    }

    /// The follower of a schema that `lower` made of the one at a place.
    fn part(&self, lowered: Value, place: &str) -> Result<Follower, Error> {
        let follower = self.follower(of_schema(lowered));
        follower.map_err(|why| Error::Schema {
            pointer: place.to_owned(),
            why,
        })
    }

    /// The error of the part of a schema at a place, by itself. `None` if there is none, or if
    /// parts of this size were tried before.
    fn fails(&self, schema: &Value, place: &str, tried: &Cell<usize>) -> Option<Error> {
        tried.set(tried.get() + TRY);
        if tried.get() > TRIED {
            return None;
        }
        let lowered = match lower(schema, place) {
            Ok(lowered) => lowered,
            Err(error) => return Some(error),
        };
        tried.set(tried.get() + lowered.to_string().len());
        match tried.get() > TRIED {
            true => None,
            false => self.part(lowered, place).err(),
        }
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
        let what = self.what();
        let (found, most) = match self {
            Rule::JsonObject => return Ok(()),
            Rule::JsonSchema(schema) => return check_schema(schema).map(drop),
            Rule::Regex(text) | Rule::Lark(text) => (text.len(), LONGEST),
        };
        match found > most {
            true => Err(Error::TooLarge { what, found, most }),
            false => Ok(()),
        }
    }

    /// Its text, which no other rule has.
    fn key(&self) -> String {
        match self {
            Rule::JsonObject => "object".into(),
            Rule::JsonSchema(schema) => format!("schema {schema}"),
            Rule::Regex(text) => format!("regex {text}"),
            Rule::Lark(text) => format!("lark {text}"),
        }
    }
}

/// The bytes of a schema; refuses one of many levels or of many bytes.
fn check_schema(schema: &Value) -> Result<usize, Error> {
    check_depth(schema)?;
    let (what, found, most) = ("JSON schema", schema.to_string().len(), LARGEST);
    match found > most {
        true => Err(Error::TooLarge { what, found, most }),
        false => Ok(found),
    }
}

/// Refuses a schema of many levels before anything recurses into it.
fn check_depth(schema: &Value) -> Result<(), Error> {
    let mut open = vec![(schema, 0)];
    while let Some((value, level)) = open.pop() {
        if level > DEEPEST {
            let why = format!("it has more than {DEEPEST} levels; use $defs for the inner ones");
            let pointer = "#".into();
            return Err(Error::Schema { pointer, why });
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, level + 1))),
            Value::Object(members) => {
                open.extend(members.values().map(|member| (member, level + 1)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Calls a function that recurses, on a thread with room for that.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::Thread(e.to_string()))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Between the parts of JSON: nothing, a space, or a new line with its indentation. A weak model
/// would else fill an answer with spaces.
const BETWEEN: &str = r" |\n[ \t]{0,20}";

/// Letters after `\` in strings. With `\u` a key could be written in another way than in
/// `properties`, and so escape its schema.
const ESCAPES: &str = "nrbtf\\\"";

fn of_schema(schema: Value) -> TopLevelGrammar {
    TopLevelGrammar::from_json_schema(with_settings(schema))
}

/// The same schema with the settings of the parser.
fn with_settings(mut schema: Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        let settings = json!({"whitespace_pattern": BETWEEN, "json_allowed_escapes": ESCAPES});
        keywords.insert("x-guidance".into(), settings);
    }
    schema
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
        // On a copy, because bytes of special tokens that are forced disturb masks.
        let mut copy = self.matcher.deep_clone();
        let mut bytes = copy.compute_ff_bytes();
        let Ok(environment) = self.matcher.tok_env() else {
            return Vec::new();
        };
        let special = |byte: &u8| *byte == TokTrie::SPECIAL_TOKEN_MARKER;
        bytes.truncate(bytes.iter().position(special).unwrap_or(bytes.len()));
        // The longest tokens come first, as a model would mostly write it. The text after the last
        // one is not known, and can be part of a longer token with it.
        let mut tokens = environment.tok_trie().greedy_tokenize(&bytes);
        if tokens.len() > 1 {
            tokens.pop();
        }
        tokens
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
