//! `Model`: requests to an engine of its own, and the parts of a model.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Map;
use sterna_runtime::{KvType, Logits, Options};
use sterna_serve::engine::{Request, Work as Kind};
use sterna_ternary::Memory;

use crate::arrays::{array, room, table};
use crate::completion::{Completion, Score};
use crate::errors::Fault;
use crate::opened::{KV_TYPES, MOST, WAYS, Wanted, bytes, count, named, tables, text};
use crate::options::{self, CHAT, COMPLETION};
use crate::requests::{
    Begun, asynchronous, batch, begin, checked, encoded, scores, start, together, warned,
};
use crate::session::Session;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;
use crate::values::{self, Prompt};

/// Tokens of a pass while all logits are computed.
const PASS: usize = 64;

/// A model in memory.
///
/// `path` is a packed file, a run, a Hugging Face folder, a GGUF file or a name of the hub. What
/// is not packed is packed once, with proof, and kept.
///
/// threads: number of threads; by default one per physical core that the process may use.
/// kv: element type of the cache, `f32`, `f16` or `q8`; results depend on it.
/// memory: `auto`, `map` or `copy`: how the file is loaded.
/// kernels: a kernel table by name; results are the same.
/// context: most tokens of a prompt and its answer; by default what model and memory allow.
/// kv_memory: memory of keys and values, like `2GiB`; by default a quarter of the memory. Those of
/// earlier requests stay in it, so that a prompt that begins like one of them is faster.
/// parallel: answers that are computed at the same time.
///
/// A model may be used from many threads at once. Requests are computed together, and the same
/// request gives the same bytes in any company.
///
/// >>> import sterna
/// >>> model = sterna.Model("model.sterna")
/// >>> model.generate("Once", max_tokens=8) == model.generate("Once", max_tokens=8)
/// True
#[pyclass(frozen, module = "sterna")]
pub struct Model {
    /// Empty after `close`.
    shared: Mutex<Option<Shared>>,
}

impl Model {
    fn lock(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, in the process that opened it.
    fn open(&self) -> PyResult<Shared> {
        let shared = self.lock().clone();
        let shared = shared.ok_or_else(|| Fault::closed("the model is closed"))?;
        shared.check_process()?;
        Ok(shared)
    }

    /// Gives a prompt and its options to the engine.
    fn continued(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let shared = self.open()?;
        let fields = options::read(options, COMPLETION)?;
        let prompt = Prompt::of("prompt", prompt, shared.vocab_size())?;
        warned(py, py.detach(|| begin(&shared, &fields, &prompt))?)
    }

    /// Gives a conversation and its options to the engine.
    fn answered(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let shared = self.open()?;
        let mut fields = options::read(options, CHAT)?;
        fields.insert("messages".into(), values::json("messages", messages)?);
        let begun = py.detach(|| -> Result<Begun, Fault> {
            let (text, continues) = shared.conversation(&fields)?;
            let ids = shared.tokenizer.encode(&text, false)?;
            start(&shared, &fields, ids, continues)
        });
        warned(py, begun?)
    }
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (path, *, threads=None, kv=None, memory=None, kernels=None, context=None,
        kv_memory=None, parallel=None), text_signature = "(path, *, threads=None, kv='f16', \
        memory='auto', kernels=None, context=None, kv_memory=None, parallel=32)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
        kv: Option<&Bound<'_, PyAny>>,
        memory: Option<&Bound<'_, PyAny>>,
        kernels: Option<&Bound<'_, PyAny>>,
        context: Option<&Bound<'_, PyAny>>,
        kv_memory: Option<&Bound<'_, PyAny>>,
        parallel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Model> {
        let wanted = Wanted {
            path: values::path("path", path)?,
            options: Options {
                threads: count("threads", threads, MOST)?,
                kernels: match text("kernels", kernels)? {
                    Some(name) => Some(named("kernels", &name, &tables())?),
                    None => None,
                },
                kv_type: match text("kv", kv)? {
                    Some(name) => named("kv", &name, &KV_TYPES.map(|kv| (kv.name(), kv)))?,
                    None => KvType::F16,
                },
                memory: match text("memory", memory)? {
                    Some(name) => named("memory", &name, &WAYS.map(|way| (way.name(), way)))?,
                    None => Memory::Auto,
                },
            },
            context: count("context", context, usize::MAX)?,
            kv_memory: text("kv_memory", kv_memory)?.map(bytes).transpose()?,
            parallel: count("parallel", parallel, MOST)?.unwrap_or(32),
        };
        let shared = py.detach(|| wanted.open())?;
        Ok(Model {
            shared: Mutex::new(Some(shared)),
        })
    }

    /// The packed file.
    #[getter]
    fn path(&self) -> PyResult<OsString> {
        Ok(self.open()?.model.file().path().into())
    }

    /// The config, with the keys of config.json.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        values::python(py, &self.open()?.model.config().to_json())
    }

    /// Most tokens of a prompt and its answer.
    #[getter]
    fn context(&self) -> PyResult<usize> {
        Ok(self.open()?.context)
    }

    /// Rows of the embedding: the length of logits.
    #[getter]
    fn vocab_size(&self) -> PyResult<usize> {
        Ok(self.open()?.vocab_size())
    }

    /// The length of the vectors of `embed`.
    #[getter]
    fn hidden_size(&self) -> PyResult<usize> {
        Ok(self.open()?.model.config().hidden_size)
    }

    /// Number of threads.
    #[getter]
    fn threads(&self) -> PyResult<usize> {
        Ok(self.open()?.model.threads())
    }

    /// The name of the kernel table.
    #[getter]
    fn kernels(&self) -> PyResult<&'static str> {
        Ok(self.open()?.model.kernels().name)
    }

    /// Names model, type of the cache and arithmetic: equal ones give equal bytes.
    #[getter]
    fn fingerprint(&self) -> PyResult<String> {
        Ok(self.open()?.fingerprint.clone())
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        let shared = self.open()?;
        Ok(Tokenizer::new(
            Arc::clone(&shared.tokenizer),
            shared.vocab_size(),
        ))
    }

    /// The chat template in the syntax of Jinja2; None if the model has none.
    #[getter]
    fn chat_template(&self) -> PyResult<Option<String>> {
        let shared = self.open()?;
        let template = shared.template.as_ref().ok();
        Ok(template.map(|template| template.original().to_owned()))
    }

    /// The token that lm-evaluation-harness puts before a document: the one that begins a text,
    /// or else the one that ends it; None if the model has neither.
    #[getter]
    fn prefix_token_id(&self) -> PyResult<Option<u32>> {
        let shared = self.open()?;
        Ok(sterna_validate::windows::prefix_token(&shared.model, &shared.tokenizer).ok())
    }

    /// Pages of keys and values, of 128 positions each, that requests use or left for later
    /// ones. Those of sessions are not counted.
    #[getter]
    fn cached_pages(&self) -> PyResult<usize> {
        Ok(self.open()?.model.pages())
    }

    /// Continues a text, or token ids.
    ///
    /// max_tokens: most tokens; by default until the model ends, or the context is full.
    /// temperature: 0 takes the most probable token, higher is more random. Default 0.
    /// top_k, top_p, min_p: cuts of the choice. Default: none.
    /// repetition_penalty, frequency_penalty, presence_penalty: default none.
    /// seed: the same seed gives the same text. Default 0.
    /// stop: a text, or several, that end the answer and are not part of it.
    /// stop_token_ids: tokens that end the answer.
    /// include_stop_str_in_output: whether a stop text is part of the answer.
    /// ignore_eos: go on after tokens that end a text.
    /// logit_bias: numbers from -100 to 100 that are added to logits of tokens; -100 forbids one.
    /// logprobs: return the tokens with probabilities, beside this number of the most probable
    /// ones, 0 to 20. prompt_logprobs: the same for the prompt.
    /// schema: write JSON that keeps to this JSON schema. regex: a text that the expression
    /// matches as a whole. grammar: a text of a grammar in Lark's syntax. choice: one of these
    /// texts. One of the four at most.
    /// prediction: a text that the answer repeats in part, which makes it faster.
    /// cache_prompt: whether keys and values of earlier requests may be used.
    ///
    /// >>> options = dict(max_tokens=20, temperature=0.8, seed=1, stop=["."])
    /// >>> model.generate("Once", **options) == model.generate("Once", **options)
    /// True
    /// >>> model.generate("Once", regex="yes|no").text in ("yes", "no")
    /// True
    ///
    /// Ctrl-C ends it within a token.
    #[pyo3(signature = (prompt, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        self.continued(py, prompt, options)?.whole(py)
    }

    /// Continues a text and gives its pieces as they are generated.
    ///
    /// >>> for piece in model.stream("Once", max_tokens=16):
    /// ...     break  # the rest is not computed
    #[pyo3(signature = (prompt, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        self.continued(py, prompt, options)
    }

    /// `generate` for asyncio. Cancelling the task ends the work.
    ///
    /// >>> import asyncio
    /// >>> async def two():
    /// ...     return await asyncio.gather(
    /// ...         model.agenerate("Once", max_tokens=4), model.agenerate("The", max_tokens=4))
    /// >>> len(asyncio.run(two()))
    /// 2
    #[pyo3(signature = (prompt, **options))]
    fn agenerate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        asynchronous(py, self.continued(py, prompt, options)?, "complete")
    }

    /// `stream` for asyncio.
    ///
    /// >>> import asyncio
    /// >>> async def pieces():
    /// ...     return [piece async for piece in model.astream("Once", max_tokens=4)]
    /// >>> "".join(asyncio.run(pieces())) == model.generate("Once", max_tokens=4).text
    /// True
    #[pyo3(signature = (prompt, **options))]
    fn astream<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        asynchronous(py, self.continued(py, prompt, options)?, "AsyncStream")
    }

    /// Continues several prompts, computed together. Each answer is that of `generate`.
    ///
    /// >>> batch = model.generate_batch(["Once", "The"], max_tokens=8)
    /// >>> batch[1] == model.generate("The", max_tokens=8)
    /// True
    #[pyo3(signature = (prompts, **options))]
    fn generate_batch(
        &self,
        py: Python<'_>,
        prompts: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Completion>> {
        let shared = self.open()?;
        let fields = options::read(options, COMPLETION)?;
        let vocab_size = shared.vocab_size();
        let prompts = values::items("prompts", prompts)?.into_iter().enumerate();
        let prompts =
            prompts.map(|(i, prompt)| Prompt::of(&format!("prompts[{i}]"), &prompt, vocab_size));
        let prompts: Vec<Prompt> = prompts.collect::<PyResult<_>>()?;
        batch(py, &shared, &fields, &prompts)
    }

    /// Answers a conversation, written as the chat template says.
    ///
    /// messages: dicts with role and content, as in OpenAI's API.
    /// add_generation_prompt, continue_final_message: an answer continues the last message if it
    /// is the assistant's, unless one of these says something else.
    /// chat_template_kwargs: variables of the template.
    /// tools: what the answer may call, as in OpenAI's API; arguments keep to the schemas.
    /// tool_choice: `auto` (the default), `none`, `required`, or one tool. Not every template shows
    /// how its model calls tools; `auto` needs one that does.
    /// parallel_tool_calls: whether an answer may have several calls; by default it may.
    /// Other options are those of `generate`. Defaults of sampling are what the
    /// generation_config.json of the model says.
    ///
    /// >>> answer = model.chat([{"role": "user", "content": "Hi"}], max_tokens=8)
    /// >>> answer.usage.completion_tokens <= 8
    /// True
    #[pyo3(signature = (messages, **options))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        self.answered(py, messages, options)?.whole(py)
    }

    /// `chat`, in pieces as they are generated.
    #[pyo3(signature = (messages, **options))]
    fn chat_stream(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        self.answered(py, messages, options)
    }

    /// `chat` for asyncio.
    #[pyo3(signature = (messages, **options))]
    fn achat<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        asynchronous(py, self.answered(py, messages, options)?, "complete")
    }

    /// `chat_stream` for asyncio.
    #[pyo3(signature = (messages, **options))]
    fn achat_stream<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        asynchronous(py, self.answered(py, messages, options)?, "AsyncStream")
    }

    /// The text of a conversation, which `chat` would encode without special tokens.
    #[pyo3(signature = (messages, *, add_generation_prompt=None, continue_final_message=None,
        tools=None, chat_template_kwargs=None))]
    fn apply_chat_template(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        add_generation_prompt: Option<bool>,
        continue_final_message: Option<bool>,
        tools: Option<&Bound<'_, PyAny>>,
        chat_template_kwargs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let shared = self.open()?;
        let mut fields = Map::new();
        fields.insert("messages".into(), values::json("messages", messages)?);
        for (name, flag) in [
            ("add_generation_prompt", add_generation_prompt),
            ("continue_final_message", continue_final_message),
        ] {
            fields.extend(flag.map(|flag| (name.to_owned(), flag.into())));
        }
        for (name, value) in [
            ("tools", tools),
            ("chat_template_kwargs", chat_template_kwargs),
        ] {
            if let Some(value) = value {
                fields.insert(name.into(), values::json(name, value)?);
            }
        }
        let text = py.detach(|| shared.conversation(&fields).map_err(Fault::from));
        Ok(text?.0)
    }

    /// The logits after each of these tokens, (n, vocab_size).
    ///
    /// >>> ids = model.tokenizer.encode("Once upon")
    /// >>> model.logits(ids).shape == (len(ids), model.vocab_size)
    /// True
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let shared = self.open()?;
        let vocab_size = shared.vocab_size();
        let ids = values::ids("ids", ids, vocab_size)?;
        checked(&shared, &ids)?;
        let cache = shared.model.new_uncounted_cache(ids.len());
        let mut cache = cache.map_err(Fault::from)?;
        let mut logits = room(ids.len().checked_mul(vocab_size))?;
        for part in ids.chunks(PASS) {
            let model = &shared.model;
            let more = py.detach(|| model.forward(&mut cache, part, Logits::All));
            logits.extend(more.map_err(Fault::from)?);
            py.check_signals()?;
        }
        table(py, logits, ids.len(), vocab_size)
    }

    /// How probable a continuation is after a prompt.
    ///
    /// Two texts are encoded together; the tokens after those of the prompt are the
    /// continuation's. Ids are taken as they are.
    ///
    /// >>> logprob, is_greedy = model.score("Once", " upon a time")
    /// >>> logprob < 0
    /// True
    fn score(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        continuation: &Bound<'_, PyAny>,
    ) -> PyResult<Score> {
        let shared = self.open()?;
        let pair = (prompt.clone(), continuation.clone());
        let scores = scores(py, &shared, vec![("".into(), pair)])?;
        Ok(scores[0])
    }

    /// The scores of many pairs of prompt and continuation, computed together.
    ///
    /// Beginnings that pairs share are computed once.
    fn score_batch(&self, py: Python<'_>, pairs: &Bound<'_, PyAny>) -> PyResult<Vec<Score>> {
        let shared = self.open()?;
        let mut all = Vec::new();
        for (index, pair) in values::items("pairs", pairs)?.into_iter().enumerate() {
            let name = format!("pairs[{index}]");
            let two = values::items(&name, &pair)?;
            let two: [Bound<PyAny>; 2] = two
                .try_into()
                .map_err(|_| values::wrong_type(&name, &pair, "a prompt and a continuation"))?;
            let [prompt, continuation] = two;
            all.push((format!("{name}: "), (prompt, continuation)));
        }
        scores(py, &shared, all)
    }

    /// Vectors of length one for texts: (n, hidden_size), or (hidden_size,) for one text.
    ///
    /// A vector is the hidden state of the last token after the last norm.
    ///
    /// >>> a, b = model.embed(["a cat", "a dog"])
    /// >>> bool(-1.001 < a @ b < 1.001)
    /// True
    fn embed<'py>(&self, py: Python<'py>, texts: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.open()?;
        let vocab_size = shared.vocab_size();
        let is_one = texts.cast::<PyString>().is_ok();
        let list = match is_one {
            true => vec![texts.clone()],
            false => values::items("texts", texts)?,
        };
        let prompts = list
            .iter()
            .enumerate()
            .map(|(i, text)| Prompt::of(&format!("texts[{i}]"), text, vocab_size));
        let prompts: Vec<Prompt> = prompts.collect::<PyResult<_>>()?;
        let requests = py.detach(|| {
            let request = |prompt: &Prompt| {
                let prompt = encoded(&shared, prompt)?;
                checked(&shared, &prompt)?;
                Ok(Request {
                    key: 0,
                    prompt,
                    work: Kind::Embed,
                    reads_cache: true,
                })
            };
            prompts
                .iter()
                .map(request)
                .collect::<Result<Vec<_>, Fault>>()
        })?;
        let hidden_size = shared.model.config().hidden_size;
        let mut numbers = room(requests.len().checked_mul(hidden_size))?;
        let rows = requests.len();
        together(py, &shared, requests, |_, answer| {
            numbers.extend(answer.vector.iter().flatten());
            Ok(())
        })?;
        match is_one {
            true => Ok(array(py, numbers)?.into_any()),
            false => Ok(table(py, numbers, rows, hidden_size)?.into_any()),
        }
    }

    /// An empty session for this number of tokens; by default as many as the context.
    #[pyo3(signature = (capacity=None))]
    fn session(&self, capacity: Option<&Bound<'_, PyAny>>) -> PyResult<Session> {
        let shared = self.open()?;
        let most = shared.model.config().max_position_embeddings;
        let capacity = match capacity {
            Some(capacity) => values::count("capacity", capacity, (1, most))?,
            None => shared.context,
        };
        Session::new(shared, capacity)
    }

    /// Ends the requests of this model; later ones raise ClosedError.
    ///
    /// Sessions keep the memory of the model until they are closed too.
    fn close(&self) {
        // The lock is free again when the last handle waits for the engine.
        let taken = self.lock().take();
        if let Some(shared) = taken.filter(|shared| shared.check_process().is_ok()) {
            shared.engine.stop();
        }
    }

    /// The model itself.
    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Closes the model.
    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) {
        let _ = (exc_type, exc, traceback);
        self.close();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        match self.open() {
            Ok(shared) => {
                let path = PyString::new(py, &shared.model.file().path().to_string_lossy());
                Ok(format!("Model({})", path.repr()?))
            }
            Err(_) => Ok("Model(closed)".into()),
        }
    }
}
