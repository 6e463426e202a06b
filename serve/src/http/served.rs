//! A model that is served: its engine, and everything that turns a request into tokens.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use sterna_runtime::calls::{CallSyntax, Place};
use sterna_runtime::{
    ChatTemplate, Constraint, Error as RuntimeError, KvCache, KvPage, Model, Sampling, Tokenizer,
};
use sterna_ternary::units;

use super::error::{ApiError, ApiResult};
use super::rule::Rule;
use crate::engine::{Handle, Limits};
use crate::memory::{self, NoRoom};

/// Bytes of a long text that are encoded to see whether it may be a prompt.
const PIECE: usize = 16 << 10;
/// Tokens that a cut inside of a text may add to it.
const CUT: usize = 64;

/// A model under its name.
pub struct Served {
    /// The name in requests and answers.
    pub name: String,
    /// The model.
    pub model: Arc<Model>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template; without one it cannot chat.
    pub template: Result<ChatTemplate, RuntimeError>,
    /// How tokens are chosen where a request does not say it.
    pub sampling: Sampling,
    /// Most tokens of a prompt and its answer.
    pub context: usize,
    /// Names the bytes of the model, the type of the cache, and the numerics of the runtime: the
    /// same fingerprint and the same request give the same bytes.
    pub fingerprint: String,
    /// The bounds of the engine.
    pub limits: Limits,
    /// The engine.
    pub engine: Handle,
    /// How the template writes calls of tools, which the first request with tools finds out.
    calls: OnceLock<Option<CallSyntax>>,
    short_ids: OnceLock<bool>,
    /// The vocabulary for rules of answers, which the first rule makes.
    #[cfg(feature = "grammar")]
    grammars: OnceLock<Result<sterna_grammar::Grammars, sterna_grammar::Error>>,
}

/// How a model is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name in requests and answers.
    pub name: String,
    /// Most tokens of a prompt and its answer; by default what model and memory allow.
    pub context: Option<usize>,
    /// The bounds of the engine.
    pub limits: Limits,
    /// A small model of the same tokens, which guesses tokens.
    pub draft: Option<Arc<Model>>,
}

/// A model that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BadModel {
    /// Its tokenizer or its settings.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The memory for keys and values.
    #[error(transparent)]
    Memory(#[from] NoRoom),
    /// The thread of its engine.
    #[error("starting the thread of the engine: {0}")]
    Thread(#[from] std::io::Error),
    /// A context that the model or the memory does not have.
    #[error(
        "a context of {found} tokens: expected 1 to {longest}, as the model was made for {model} \
         tokens and the memory of keys and values holds {memory}; change --context or --kv-memory"
    )]
    Context {
        /// The context that was asked for.
        found: usize,
        /// What is possible.
        longest: usize,
        /// What the model was made for.
        model: usize,
        /// What fits into memory.
        memory: usize,
    },
}

impl Served {
    /// Starts the engine of a model.
    ///
    /// # Errors
    /// [`BadModel`].
    pub fn start(model: Arc<Model>, options: Options) -> Result<Served, BadModel> {
        let tokenizer = model.tokenizer()?;
        Served::start_with(model, tokenizer, options)
    }

    /// [`Served::start`] with the tokenizer of the model.
    ///
    /// # Errors
    /// [`BadModel`].
    pub fn start_with(
        model: Arc<Model>,
        tokenizer: Tokenizer,
        options: Options,
    ) -> Result<Served, BadModel> {
        let tokenizer = Arc::new(tokenizer);
        let context = context(&model, &options)?;
        let sampling = model.default_sampling()?;
        let limits = options.limits.clone();
        let draft = options
            .draft
            .map(|draft| check_draft(draft, &model, &tokenizer))
            .transpose()?;
        let shared = (Arc::clone(&model), Arc::clone(&tokenizer));
        let engine = Handle::start(shared.0, shared.1, draft, options.limits)?;
        Ok(Served {
            name: options.name,
            template: model.chat_template(),
            sampling,
            context,
            fingerprint: model.fingerprint(),
            limits,
            engine,
            model,
            tokenizer,
            calls: OnceLock::new(),
            short_ids: OnceLock::new(),
            #[cfg(feature = "grammar")]
            grammars: OnceLock::new(),
        })
    }

    /// A model with an engine that computes one request after the other, for a replay.
    ///
    /// # Errors
    /// [`BadModel`].
    pub fn alone(model: Model) -> Result<Served, BadModel> {
        const HOUR: Duration = Duration::from_secs(3600);
        let context = model.config().max_position_embeddings;
        // Several answers to one prompt are computed at the same time.
        let most = 8 * (context.div_ceil(KvPage::TOKENS) + 1);
        let pages = memory::pages(&[&model], None, None, None)?[0].min(most);
        let limits = Limits {
            parallel: 8,
            queue: 4096,
            queue_tokens: usize::MAX / 2,
            queue_timeout: 24 * HOUR,
            timeout: 24 * HOUR,
            ..Limits::usual(pages, 0)
        };
        let options = Options {
            name: "replay".into(),
            context: None,
            limits,
            draft: None,
        };
        Served::start(Arc::new(model), options)
    }

    /// Its name and what bounds a request for it, in one line.
    pub fn describe(&self) -> String {
        let page = KvCache::page_bytes(self.model.config(), self.model.kv_type());
        format!(
            "{}: context {}, {} for keys and values, fingerprint {}",
            self.name,
            self.context,
            units::bytes((self.limits.pages * page) as u64),
            self.fingerprint,
        )
    }

    /// The chat template.
    ///
    /// # Errors
    /// 400 where there is none that can be used.
    pub fn template(&self) -> ApiResult<&ChatTemplate> {
        let template = self.template.as_ref();
        template.map_err(|error| ApiError::runtime("messages", error))
    }

    /// How the chat template writes calls of tools; `None` if it writes none, or in a form that is
    /// not understood.
    pub fn call_syntax(&self) -> Option<&CallSyntax> {
        let find = || CallSyntax::of(self.template.as_ref().ok()?, &self.tokenizer);
        self.calls.get_or_init(find).as_ref()
    }

    /// Whether the chat template refuses ids of calls that are not nine letters and digits.
    pub fn needs_short_ids(&self) -> bool {
        let template = self.template.as_ref().ok();
        let try_it = |template| CallSyntax::needs_short_ids(template, &self.tokenizer);
        *self.short_ids.get_or_init(|| template.is_some_and(try_it))
    }

    /// Whether the chat template has a place for tools.
    pub fn knows_tools(&self) -> bool {
        let template = self.template.as_ref();
        template.is_ok_and(|template| template.names("tools"))
    }

    /// Whether calls can be told from text, so that the model may choose.
    pub fn calls_anywhere(&self) -> bool {
        let syntax = self.call_syntax().filter(|_| self.knows_tools());
        let place = syntax.and_then(|syntax| syntax.clone().trimmed().place(&self.tokenizer));
        cfg!(feature = "grammar") && place.is_some()
    }

    /// The constraint of an answer that may call tools, given by names and schemas.
    ///
    /// # Errors
    /// Why it cannot be enforced in full, and the index of the tool that is at fault, if one is.
    #[cfg(feature = "grammar")]
    pub fn calls(
        &self,
        syntax: &CallSyntax,
        tools: &[(String, Value)],
        place: &Place,
        are_several: bool,
    ) -> Result<Box<dyn Constraint>, (Option<usize>, String)> {
        let make = || sterna_grammar::Grammars::new(&self.tokenizer, self.vocab_size());
        let grammars = self.grammars.get_or_init(make).as_ref();
        let grammars = grammars.map_err(|error| (None, error.to_string()))?;
        let calls = sterna_grammar::Calls {
            syntax,
            tools,
            place,
            are_several,
        };
        let constraint = grammars.calls(calls);
        constraint.map_err(|(index, error)| (index, error.to_string()))
    }

    /// This program was built without rules.
    ///
    /// # Errors
    /// That.
    #[cfg(not(feature = "grammar"))]
    pub fn calls(
        &self,
        _: &CallSyntax,
        _: &[(String, Value)],
        _: &Place,
        _: bool,
    ) -> Result<Box<dyn Constraint>, (Option<usize>, String)> {
        let why = "they need a server that was built with the feature grammar; leave them out, or \
                   send \"tool_choice\": \"none\"";
        Err((None, why.to_owned()))
    }

    /// The constraint of a rule that the field `param` asks for.
    ///
    /// # Errors
    /// 400: the rule cannot be enforced in full.
    #[cfg(feature = "grammar")]
    pub fn constraint(&self, param: &str, rule: Rule) -> ApiResult<Box<dyn Constraint>> {
        let make = || sterna_grammar::Grammars::new(&self.tokenizer, self.vocab_size());
        match self.grammars.get_or_init(make) {
            Ok(grammars) => super::rule::compile(grammars, param, rule),
            Err(error) => Err(ApiError::unsupported(param, format!("{param}: {error}"))),
        }
    }

    /// This program was built without rules.
    ///
    /// # Errors
    /// 400.
    #[cfg(not(feature = "grammar"))]
    pub fn constraint(&self, param: &str, _: Rule) -> ApiResult<Box<dyn Constraint>> {
        let message =
            format!("{param} needs a server that was built with the feature grammar; leave it out");
        Err(ApiError::unsupported(param, message))
    }

    /// A JSON file of the checkpoint; null where it is absent.
    pub fn embedded(&self, name: &str) -> Value {
        let bytes = self.model.file().file(name);
        let parsed = bytes.and_then(|bytes| sterna_ternary::json::parse(bytes).ok());
        parsed.unwrap_or_default()
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    /// Token ids of a text that is to be a prompt.
    ///
    /// # Errors
    /// 400 for a text that the tokenizer cannot encode, and for one that is much longer than the
    /// context: it is not encoded to its end.
    pub fn encode(&self, param: &str, text: &str, special: bool) -> ApiResult<Vec<u32>> {
        let (mut rest, mut tokens, mut cuts) = (text, 0, 0);
        while rest.len() > PIECE {
            let mut end = PIECE;
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            tokens += self.encode_all(param, &rest[..end], false)?.len();
            (rest, cuts) = (&rest[end..], cuts + 1);
            if tokens > self.context + self.context / 4 + CUT * cuts {
                return Err(ApiError::context(
                    param,
                    &format!("over {tokens}"),
                    self.context,
                ));
            }
        }
        self.encode_all(param, text, special)
    }

    /// Token ids of a text of any length.
    ///
    /// # Errors
    /// 400 for a text that the tokenizer cannot encode.
    pub fn encode_all(&self, param: &str, text: &str, special: bool) -> ApiResult<Vec<u32>> {
        let ids = self.tokenizer.encode(text, special);
        ids.map_err(|error| ApiError::runtime(param, &error))
    }

    /// Refuses a prompt that is empty or longer than the context.
    ///
    /// # Errors
    /// 400 with both numbers.
    pub fn check(&self, param: &str, prompt: &[u32]) -> ApiResult<()> {
        match prompt.len() {
            0 => {
                let message = format!("{param} has no tokens, expected at least one");
                Err(ApiError::invalid(param, message))
            }
            tokens if tokens > self.context => {
                Err(ApiError::context(param, &tokens.to_string(), self.context))
            }
            _ => Ok(()),
        }
    }
}

/// A model that can guess the tokens of another one.
fn check_draft(
    draft: Arc<Model>,
    model: &Model,
    tokenizer: &Tokenizer,
) -> Result<Arc<Model>, RuntimeError> {
    let sizes = [model, &draft].map(|model| model.config().vocab_size);
    sterna_runtime::draft::check_tokens(tokenizer, &draft.tokenizer()?, sizes)?;
    Ok(draft)
}

fn context(model: &Model, options: &Options) -> Result<usize, BadModel> {
    let longest = model.config().max_position_embeddings;
    // The engine keeps one page for the copy of a shared one.
    let memory = options.limits.pages.saturating_sub(1) * KvPage::TOKENS;
    let possible = longest.min(memory);
    let found = options.context.unwrap_or(possible);
    match (1..=possible).contains(&found) {
        true => Ok(found),
        false => Err(BadModel::Context {
            found,
            longest: possible,
            model: longest,
            memory,
        }),
    }
}
