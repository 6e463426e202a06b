"""The compiled part of the package; import `sterna` instead."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, Unpack

from ._async import AsyncStream
from .types import (
    ChatOptions,
    Comparison,
    ConversionReport,
    Examination,
    Facts,
    GenerateOptions,
    ServeOptions,
    TrainingMetrics,
    TrainingOutcome,
)

__all__ = [
    "ClosedError",
    "Completion",
    "ConstraintError",
    "ContextError",
    "Error",
    "FileError",
    "Model",
    "ModelError",
    "Score",
    "Server",
    "Session",
    "Stream",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "Trainer",
    "Usage",
    "UsageError",
    "__version__",
    "convert",
    "doctor",
    "inspect",
    "run",
    "serve",
    "verify",
]

__version__: Final[str]

_Path: TypeAlias = str | os.PathLike[str]
_Ids: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
_Prompt: TypeAlias = str | _Ids
_Messages: TypeAlias = Sequence[Mapping[str, Any]]

class Error(Exception):
    """The base of all errors of this package."""

class FileError(Error):
    """A file, a folder or a name of the hub that cannot be used."""

class ModelError(Error):
    """The model failed: it computed a number that is not finite, or tokens without a text."""

class UsageError(Error, ValueError):
    """An argument with a value that it cannot have."""

class ContextError(UsageError):
    """More tokens than the context holds."""

class ConstraintError(UsageError):
    """A schema, a regular expression or a grammar that cannot be enforced in full."""

class ClosedError(Error):
    """What is used is closed, in use by another thread, or was made before a fork."""

@final
class Usage:
    """The counts of tokens of a completion."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
    @property
    def completion_tokens(self) -> int:
        """Tokens that were generated, the one that ended the text included."""
    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt whose keys and values were known from earlier requests."""
    @property
    def drafted_tokens(self) -> int:
        """Tokens that were guessed and computed."""
    @property
    def accepted_tokens(self) -> int:
        """Tokens that were guessed right."""

@final
class TokenLogprob:
    """A token and how probable it was to the model, before penalties, temperature and filters."""

    @property
    def id(self) -> int:
        """The token."""
    @property
    def logprob(self) -> float | None:
        """Natural logarithm of its probability; None for the first token of a prompt."""
    @property
    def rank(self) -> int | None:
        """1 if it is the most probable token, 2 for the next one."""
    @property
    def top(self) -> list[tuple[int, float]]:
        """The most probable tokens and the logarithms of their probabilities, best first."""

@final
class ToolCall:
    """A call of a tool."""

    @property
    def id(self) -> str:
        """Its id, which the message with the result repeats."""
    @property
    def name(self) -> str:
        """The name of the tool."""
    @property
    def arguments(self) -> str:
        """Its arguments: JSON that keeps to the schema of the tool, or the beginning of it where
        `max_tokens` ended the answer."""

@final
class Completion:
    """A text that was generated. Two completions are equal if all but their counts is.

    >>> completion = model.generate("Once", max_tokens=4, logprobs=2)
    >>> completion.finish_reason
    'length'
    >>> len(completion.tokens), len(completion.logprobs[0].top)
    (4, 2)
    >>> str(completion) == completion.text
    True
    """

    @property
    def text(self) -> str:
        """The text, without the prompt; calls of tools are in it as the model wrote them."""
    @property
    def content(self) -> str:
        """The text without calls of tools."""
    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of tools."""
    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message of a conversation, which `chat` takes."""
    @property
    def tokens(self) -> list[int]:
        """The tokens of the text, without the one that ended it."""
    @property
    def finish_reason(self) -> Literal["stop", "length", "tool_calls"]:
        """`tool_calls` if the model ended it after a call of a tool, `stop` if it or a stop text
        ended it otherwise, `length` if no more tokens were allowed."""
    @property
    def stop_text(self) -> str | None:
        """The stop text that ended it, or the name of the token that did."""
    @property
    def stop_token(self) -> int | None:
        """The token that ended it."""
    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """The tokens with their probabilities, if `logprobs` was given."""
    @property
    def prompt_logprobs(self) -> list[TokenLogprob] | None:
        """The tokens of the prompt with theirs, if `prompt_logprobs` was given."""
    @property
    def usage(self) -> Usage:
        """The counts of tokens."""
    @property
    def seed(self) -> int:
        """The seed of the random numbers."""

@final
class Score:
    """How probable a continuation is. It unpacks into logprob and is_greedy."""

    @property
    def logprob(self) -> float:
        """Sum of the natural logarithms of the probabilities of its tokens."""
    @property
    def is_greedy(self) -> bool:
        """Whether each token is the most probable one."""
    @property
    def num_tokens(self) -> int:
        """Tokens of the continuation."""
    def __iter__(self) -> Iterator[float | bool]:
        """Iterates over logprob and is_greedy."""

@final
class Stream:
    """The pieces of a text, as they are generated.

    A piece is never empty and never ends inside a character. The rest is not computed when the
    stream is closed or dropped.

    >>> with model.stream("Once", max_tokens=16) as stream:
    ...     pieces = list(stream)
    >>> "".join(pieces) == stream.result().text
    True
    """

    def __iter__(self) -> Self:
        """The stream itself."""
    def __next__(self) -> str:
        """The next piece."""
    def result(self) -> Completion:
        """Waits for the end and returns the whole text with its counts.

        Pieces that were read are part of it. After `close` it raises ClosedError.
        """
    def close(self) -> None:
        """Ends the generation. Pieces that were not read are lost."""
    def __enter__(self) -> Self:
        """The stream itself."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the stream, unless it has ended."""
    def _poll(self) -> str | None:
        """The next piece if it is there; None if it is not, or at the end. For `AsyncStream`."""
    def _is_over(self) -> bool:
        """Whether nothing follows."""
    def _wake_with(self, waker: Callable[[], object]) -> None:
        """Calls `waker` when there is something to poll."""

@final
class Tokenizer:
    """The tokenizer of a model, with the ids of transformers.

    >>> ids = model.tokenizer.encode("Once upon a time")
    >>> model.tokenizer.decode(ids)
    'Once upon a time'
    """

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
    def decode(self, ids: _Ids, *, skip_special_tokens: bool = True) -> str:
        """The text of token ids. Bytes that are not UTF-8 become U+FFFD."""
    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; none for an id without a token."""
    def id_to_token(self, id: int) -> str | None:
        """A token as the vocabulary writes it."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token by its name, such as `<|eot_id|>`."""
    def is_special(self, id: int) -> bool:
        """Whether texts do not show a token."""
    @property
    def eos_token_ids(self) -> list[int]:
        """Tokens that end a text, ascending."""
    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
    def __len__(self) -> int:
        """Number of tokens, special ones included."""

@final
class Session:
    """Keys and values of one sequence, for samplers and searches of your own.

    >>> session = model.session()
    >>> session.feed(model.tokenizer.encode("Once"))
    >>> logits = session.next_logits()
    >>> logits.shape == (model.vocab_size,)
    True
    >>> branch = session.fork()
    >>> branch.feed([int(logits.argmax())])
    >>> len(branch) - len(session)
    1

    A session belongs to one thread at a time: a call during another call raises ClosedError.
    """

    def feed(self, ids: _Ids) -> None:
        """Computes tokens after those of the session."""
    def feed_logits(self, ids: _Ids) -> NDArray[np.float32]:
        """The same, and returns the logits after each of these tokens, (n, vocab_size)."""
    def next_logits(self) -> NDArray[np.float32]:
        """The logits of the token that follows, (vocab_size,)."""
    def truncate(self, length: int) -> None:
        """Keeps the first tokens, so that another continuation can follow them."""
    def fork(self) -> Session:
        """A session with the same tokens, which shares memory until one of them changes."""
    def close(self) -> None:
        """Frees the memory."""
    @property
    def tokens(self) -> list[int]:
        """The tokens so far."""
    @property
    def capacity(self) -> int:
        """Most tokens."""
    def __len__(self) -> int:
        """The number of tokens so far."""
    def __enter__(self) -> Self:
        """The session itself."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the session."""

@final
class Model:
    """A model in memory.

    `path` is a packed file, a run, a Hugging Face folder, a GGUF file or a name of the hub. What
    is not packed is packed once, with proof, and kept.

    threads: number of threads; by default one per physical core that the process may use.
    kv: element type of the cache, `f32`, `f16` or `q8`; results depend on it.
    memory: `auto`, `map` or `copy`: how the file is loaded.
    kernels: a kernel table by name; results are the same.
    context: most tokens of a prompt and its answer; by default what model and memory allow.
    kv_memory: memory of keys and values, like `2GiB`; by default a quarter of the memory. Those of
    earlier requests stay in it, so that a prompt that begins like one of them is faster.
    parallel: answers that are computed at the same time.

    A model may be used from many threads at once. Requests are computed together, and the same
    request gives the same bytes in any company.

    >>> import sterna
    >>> model = sterna.Model("model.sterna")
    >>> model.generate("Once", max_tokens=8) == model.generate("Once", max_tokens=8)
    True
    """

    def __new__(
        cls,
        path: _Path,
        *,
        threads: int | None = None,
        kv: Literal["f32", "f16", "q8"] = "f16",
        memory: Literal["auto", "map", "copy"] = "auto",
        kernels: str | None = None,
        context: int | None = None,
        kv_memory: str | None = None,
        parallel: int = 32,
    ) -> Self: ...
    @property
    def path(self) -> str:
        """The packed file."""
    @property
    def config(self) -> dict[str, Any]:
        """The config, with the keys of config.json."""
    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer."""
    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: the length of logits."""
    @property
    def hidden_size(self) -> int:
        """The length of the vectors of `embed`."""
    @property
    def threads(self) -> int:
        """Number of threads."""
    @property
    def kernels(self) -> str:
        """The name of the kernel table."""
    @property
    def fingerprint(self) -> str:
        """Names model, type of the cache and arithmetic: equal ones give equal bytes."""
    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
    @property
    def chat_template(self) -> str | None:
        """The chat template in the syntax of Jinja2; None if the model has none."""
    @property
    def prefix_token_id(self) -> int | None:
        """The token that lm-evaluation-harness puts before a document: the one that begins a text,
        or else the one that ends it; None if the model has neither."""
    @property
    def cached_pages(self) -> int:
        """Pages of keys and values, of 128 positions each, that requests use or left for later
        ones. Those of sessions are not counted."""

    def generate(self, prompt: _Prompt, **options: Unpack[GenerateOptions]) -> Completion:
        """Continues a text, or token ids.

        max_tokens: most tokens; by default until the model ends, or the context is full.
        temperature: 0 takes the most probable token, higher is more random. Default 0.
        top_k, top_p, min_p: cuts of the choice. Default: none.
        repetition_penalty, frequency_penalty, presence_penalty: default none.
        seed: the same seed gives the same text. Default 0.
        stop: a text, or several, that end the answer and are not part of it.
        stop_token_ids: tokens that end the answer.
        include_stop_str_in_output: whether a stop text is part of the answer.
        ignore_eos: go on after tokens that end a text.
        logit_bias: numbers from -100 to 100 that are added to logits of tokens; -100 forbids one.
        logprobs: return the tokens with probabilities, beside this number of the most probable
        ones, 0 to 20. prompt_logprobs: the same for the prompt.
        schema: write JSON that keeps to this JSON schema. regex: a text that the expression
        matches as a whole. grammar: a text of a grammar in Lark's syntax. choice: one of these
        texts. One of the four at most.
        prediction: a text that the answer repeats in part, which makes it faster.
        cache_prompt: whether keys and values of earlier requests may be used.

        >>> options = dict(max_tokens=20, temperature=0.8, seed=1, stop=["."])
        >>> model.generate("Once", **options) == model.generate("Once", **options)
        True
        >>> model.generate("Once", regex="yes|no").text in ("yes", "no")
        True

        Ctrl-C ends it within a token.
        """
    def stream(self, prompt: _Prompt, **options: Unpack[GenerateOptions]) -> Stream:
        """Continues a text and gives its pieces as they are generated.

        >>> for piece in model.stream("Once", max_tokens=16):
        ...     break  # the rest is not computed
        """
    async def agenerate(
        self, prompt: _Prompt, **options: Unpack[GenerateOptions]
    ) -> Completion:
        """`generate` for asyncio. Cancelling the task ends the work.

        >>> import asyncio
        >>> async def two():
        ...     return await asyncio.gather(
        ...         model.agenerate("Once", max_tokens=4), model.agenerate("The", max_tokens=4))
        >>> len(asyncio.run(two()))
        2
        """
    def astream(self, prompt: _Prompt, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """`stream` for asyncio.

        >>> import asyncio
        >>> async def pieces():
        ...     return [piece async for piece in model.astream("Once", max_tokens=4)]
        >>> "".join(asyncio.run(pieces())) == model.generate("Once", max_tokens=4).text
        True
        """
    def generate_batch(
        self, prompts: Sequence[_Prompt], **options: Unpack[GenerateOptions]
    ) -> list[Completion]:
        """Continues several prompts, computed together. Each answer is that of `generate`.

        >>> batch = model.generate_batch(["Once", "The"], max_tokens=8)
        >>> batch[1] == model.generate("The", max_tokens=8)
        True
        """
    def chat(self, messages: _Messages, **options: Unpack[ChatOptions]) -> Completion:
        """Answers a conversation, written as the chat template says.

        messages: dicts with role and content, as in OpenAI's API.
        add_generation_prompt, continue_final_message: an answer continues the last message if it
        is the assistant's, unless one of these says something else.
        chat_template_kwargs: variables of the template.
        tools: what the answer may call, as in OpenAI's API; arguments keep to the schemas.
        tool_choice: `auto` (the default), `none`, `required`, or one tool. Not every template shows
        how its model calls tools; `auto` needs one that does.
        parallel_tool_calls: whether an answer may have several calls; by default it may.
        Other options are those of `generate`. Defaults of sampling are what the
        generation_config.json of the model says.

        >>> answer = model.chat([{"role": "user", "content": "Hi"}], max_tokens=8)
        >>> answer.usage.completion_tokens <= 8
        True
        """
    def chat_stream(self, messages: _Messages, **options: Unpack[ChatOptions]) -> Stream:
        """`chat`, in pieces as they are generated."""
    async def achat(self, messages: _Messages, **options: Unpack[ChatOptions]) -> Completion:
        """`chat` for asyncio."""
    def achat_stream(self, messages: _Messages, **options: Unpack[ChatOptions]) -> AsyncStream:
        """`chat_stream` for asyncio."""
    def apply_chat_template(
        self,
        messages: _Messages,
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation, which `chat` would encode without special tokens."""
    def logits(self, ids: _Ids) -> NDArray[np.float32]:
        """The logits after each of these tokens, (n, vocab_size).

        >>> ids = model.tokenizer.encode("Once upon")
        >>> model.logits(ids).shape == (len(ids), model.vocab_size)
        True
        """
    def score(self, prompt: _Prompt, continuation: _Prompt) -> Score:
        """How probable a continuation is after a prompt.

        Two texts are encoded together; the tokens after those of the prompt are the
        continuation's. Ids are taken as they are.

        >>> logprob, is_greedy = model.score("Once", " upon a time")
        >>> logprob < 0
        True
        """
    def score_batch(self, pairs: Sequence[tuple[_Prompt, _Prompt]]) -> list[Score]:
        """The scores of many pairs of prompt and continuation, computed together.

        Beginnings that pairs share are computed once.
        """
    @overload
    def embed(self, texts: str) -> NDArray[np.float32]: ...
    @overload
    def embed(self, texts: Sequence[_Prompt]) -> NDArray[np.float32]:
        """Vectors of length one for texts: (n, hidden_size), or (hidden_size,) for one text.

        A vector is the hidden state of the last token after the last norm.

        >>> a, b = model.embed(["a cat", "a dog"])
        >>> bool(-1.001 < a @ b < 1.001)
        True
        """
    def session(self, capacity: int | None = None) -> Session:
        """An empty session for this number of tokens; by default as many as the context."""
    def close(self) -> None:
        """Ends the requests of this model; later ones raise ClosedError.

        Sessions keep the memory of the model until they are closed too.
        """
    def __enter__(self) -> Self:
        """The model itself."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the model."""

@final
class Trainer:
    """A run of training.

    recipe: the path of a TOML file, its text (with a line break), or a dict of its tables. May be
    absent if `preset` names a recipe of the program.
    out: the folder of the run. A run that was stopped goes on from its last checkpoint.
    set: values of the recipe by their keys, like {"train.steps": 10}.
    threads: number of threads, one number for the process; weights do not depend on it.

    >>> trainer = sterna.Trainer("tiny.toml", out="run")  # doctest: +SKIP
    >>> outcome = trainer.run(lambda step, metrics: step < 100)  # doctest: +SKIP
    """

    def __new__(
        cls,
        recipe: _Path | Mapping[str, Any] | None = None,
        *,
        out: _Path,
        preset: str | None = None,
        set: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> Self: ...
    @property
    def out(self) -> str:
        """The folder of the run."""
    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe with all defaults."""
    def run(
        self, callback: Callable[[int, TrainingMetrics], object] | None = None
    ) -> TrainingOutcome:
        """Trains until the last step and writes a Hugging Face folder.

        callback(step, metrics) is called after each step and each evaluation. If it returns
        False, the run saves a checkpoint and ends; the same happens, and the exception is raised
        again, if it raises one or Ctrl-C is pressed.
        """

@final
class Server:
    """A server that answers over HTTP, in threads of this process."""

    @property
    def url(self) -> str:
        """Its address, like http://127.0.0.1:8080."""
    @property
    def host(self) -> str:
        """The address it listens on."""
    @property
    def port(self) -> int:
        """The port."""
    @property
    def models(self) -> list[str]:
        """The names of the models."""
    def stop(self) -> int:
        """Waits for answers in progress and ends the server.

        Returns the number of requests that took too long and were cut off. A second call does
        nothing.
        """
    def __enter__(self) -> Self:
        """The server itself."""
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the server."""

def convert(
    source: _Path,
    out: _Path,
    *,
    to: str = "native",
    packing: str = "i2",
    head: str | None = None,
    activations: str | None = None,
    pre: str | None = None,
    lossy: bool = False,
    masters: bool = False,
    allow_missing: bool = False,
    i2s_order: Literal["x86", "arm"] = "x86",
    kernel_config: _Path | None = None,
) -> ConversionReport:
    """Converts a model to another format, and proves that no weight differs.

    Options are the flags of `sterna convert`.

    >>> report = sterna.convert("model", "copy.sterna")
    >>> report["differ"]
    0
    """

def verify(
    a: _Path,
    b: _Path,
    *,
    i2s_order: Literal["x86", "arm"] = "x86",
    kernel_config: _Path | None = None,
) -> Comparison:
    """Compares two models trit by trit, in any formats.

    >>> sterna.verify("model", "model.sterna")["equal"]
    True
    """

def doctor(model: _Path) -> Examination:
    """Checks a model for known mistakes.

    >>> sterna.doctor("model.sterna")["broken"]
    0
    """

def inspect(model: _Path, *, verify: bool = False, context: int | None = None) -> Facts:
    """What is in a model: shapes, packing, sizes, trits, tokenizer.

    verify: read everything, compare the checksum and count all trits.
    context: tokens of context for which memory is counted.

    >>> sterna.inspect("model.sterna")["packing"]
    'i2'
    """

def serve(
    models: _Path | Sequence[_Path],
    **options: Unpack[ServeOptions],
) -> Server:
    """Serves models over HTTP with OpenAI's API, in threads of this process.

    Options are the keys of the file of `sterna serve --config`, with _ for -. Port 0, the default
    here, takes a free one.

    >>> from urllib.request import urlopen
    >>> with sterna.serve("model.sterna") as server:
    ...     urlopen(server.url + "/health").status
    200
    """

def run(args: Sequence[str]) -> int:
    """Runs the command line with these arguments and returns its exit code."""
