"""Calls that nobody should make, one after the other, in a process of their own.

`python hostile.py MODELS FOLDER` prints the number of each call before it is made and what came of
it afterwards, so that the call at which a process died is known. test_hostile.py runs it.
"""

import asyncio
import copy
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sterna

# What a call may raise.
EXPECTED = (sterna.Error, TypeError, ValueError, OverflowError)
HUGE = 2**70


class Liar:
    """A sequence whose length is not that of its items."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        raise ValueError(f"no item {index}")


class Index:
    """A number that is none."""

    def __index__(self) -> int:
        raise ValueError("no number")


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner}}
    return inner


def circle() -> dict[str, Any]:
    inside: dict[str, Any] = {"type": "object"}
    inside["properties"] = {"a": inside}
    return inside


# A recipe that works.
GOOD: dict[str, Any] = {
    "model": {"family": "bitnet", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 1, "num_attention_heads": 1},
    "data": {"mix": "stories=1", "documents": 50, "vocab_size": 280},
    "train": {"steps": 2, "batch": 1, "context": 32, "learning_rate": 1e-3, "warmup": 1},
}  # fmt: skip

# No token ids.
IDS: list[Any] = [
    None, 5, 3.5, b"bytes", object(), {"a": 1}, {5}, [None], ["a", 5], [1.5], [-1], [2**31],
    [2**32], [HUGE], [10**6], [[1, 2], [3]], [Index()], Liar(3), Liar(-1), iter([5]), [5, "a"],
    [math.nan], np.array(1), np.zeros((2, 2), np.int64), np.array([1.5]), np.array(["a"]),
    np.array([-1]), np.array([2**40]), np.array([2**63], np.uint64), np.array([None]),
    np.array([1 + 2j]), np.array([5], np.float16), np.zeros((1, 0, 3), np.int32),
    np.array(["2020-01-01"], "datetime64[D]"), [5] * 100_000, range(10**7),
]  # fmt: skip
TEXTS: list[Any] = ["\ud800", "a\udfff", "word " * 200_000]

OPTIONS: dict[str, list[Any]] = {
    "max_tokens": [-1, HUGE, "a", 1.5, [], math.nan],
    "temperature": [-1, math.nan, math.inf, "a", [], 1e400, HUGE**20],
    "top_k": [-1, HUGE, 1.5, "a"],
    "top_p": [-0.1, 1.1, math.nan, "a"],
    "min_p": [-0.1, 1.1, math.nan, "a"],
    "repetition_penalty": [0, -1, math.nan, math.inf, "a"],
    "frequency_penalty": [math.nan, math.inf, "a"],
    "presence_penalty": [math.nan, -math.inf, "a"],
    "seed": [-1, HUGE, "a", 1.5],
    "stop": [5, [5], [None], "", [""], b"a", {"a": "b"}, ["\ud800"]],
    "stop_token_ids": [5, ["a"], [-1], [2**40], [10**6]],
    "include_stop_str_in_output": ["a", 5],
    "ignore_eos": ["a", []],
    "logit_bias": [5, [5], {"a": 1}, {5: "a"}, {5: math.nan}, {5: 1000}, {-1: 1}, {2**40: 1},
                   {10**6: 1}],
    "logprobs": [-1, 21, "a", 1.5, HUGE],
    "prompt_logprobs": [-1, 21, "a", HUGE],
    "schema": [5, "no json", {"type": "nonsense"}, {"$ref": "#/nowhere"}, {"minimum": math.nan},
               {"uniqueItems": True, "type": "array"}, {"a": {5}}, {"a": object()}, nested(5000),
               circle(), '{"type": "string"', {"enum": []}, False,
               {"pattern": "(", "type": "string"}, {"const": "\ud800"}],
    "regex": [5, "(", "(?=a)a", "\ud800", "(" * 100_000],
    "grammar": [5, "nonsense", "start: start", "start: A\nA: /(/", "x: 'a'"],
    "choice": [5, [], [5], "left", ["\ud800"], [None]],
    "prediction": [5, ["a"], "\ud800"],
    "cache_prompt": ["a", 5],
    "no_such_option": [1],
}  # fmt: skip

MESSAGES: list[Any] = [
    None, 5, "hi", [5], [None], ["hi"], {"role": "user", "content": "hi"}, [{}],
    [{"role": 5, "content": "hi"}], [{"role": "user", "content": object()}],
    [{"role": "user", "content": {5}}], [{"role": "user", "content": "\ud800"}],
    [{"role": "\ud800", "content": "a"}], [{5: "user"}], [{"role": "user", "content": circle()}],
    [{"role": "user", "content": nested(100_000)}], Liar(2),
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}],
]  # fmt: skip

PATHS: list[Any] = [None, 5, b"a", "", "missing", "a\0b", "empty", "text", "half", "\ud800", []]

Call = tuple[str, Callable[[], object]]


def shown(value: Any) -> str:
    """A value in a few characters."""
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return f"a deep {type(value).__name__}"


def each(name: str, function: Callable[[Any], object], values: list[Any]) -> Iterator[Call]:
    """Calls a function with each of the values."""
    for value in values:
        yield f"{name} {shown(value)}", partial(function, value)


def each_option(
    name: str, function: Callable[..., object], options: dict[str, list[Any]]
) -> Iterator[Call]:
    """Calls a function with each value of each option."""
    for option, values in options.items():
        for value in values:
            yield f"{name} {option}={shown(value)}", partial(function, **{option: value})


def of_prompts(model: Any) -> Iterator[Call]:
    session = model.session()
    functions: dict[str, Callable[[Any], object]] = {
        "generate": lambda bad: model.generate(bad, max_tokens=1),
        "stream": lambda bad: list(model.stream(bad, max_tokens=1)),
        "agenerate": lambda bad: asyncio.run(model.agenerate(bad, max_tokens=1)),
        "generate_batch": lambda bad: model.generate_batch(["Once", bad], max_tokens=1),
        "score after": lambda bad: model.score(bad, [5]),
        "score of": lambda bad: model.score([5], bad),
        "score_batch": lambda bad: model.score_batch([([5], [6]), ([5], bad)]),
        "embed": lambda bad: model.embed([bad]),
    }
    for name, function in functions.items():
        yield from each(name, function, IDS + TEXTS)
    yield from each("logits", model.logits, [*IDS, "a text"])
    yield from each("feed", session.feed, [*IDS, "a text"])
    yield from each("feed_logits", session.feed_logits, [*IDS, "a text"])
    # Any number of tokens that exist can be decoded.
    yield from each("decode", model.tokenizer.decode, [*IDS[:-2], "a text"])


def of_options(model: Any) -> Iterator[Call]:
    yield from each_option("generate", partial(model.generate, "Once"), OPTIONS)
    first = {name: values[:1] for name, values in OPTIONS.items()}
    yield from each_option("stream", partial(model.stream, "Once"), first)
    yield from each_option("generate_batch", partial(model.generate_batch, ["Once"]), first)
    yield "two rules", lambda: model.generate("a", regex="a", choice=["a"])
    yield "no prompt", lambda: model.generate()
    yield "two prompts", lambda: model.generate("a", "b")
    yield "a batch that is none", lambda: model.generate_batch(5)
    yield "pairs that are none", lambda: model.score_batch([5])
    yield "pairs of three", lambda: model.score_batch([([5], [6], [7])])


def of_chats(model: Any) -> Iterator[Call]:
    template = model.apply_chat_template
    yield from each("template", template, MESSAGES)
    yield from each("chat", partial(model.chat, max_tokens=1), MESSAGES)
    yield from each("stream", lambda bad: list(model.chat_stream(bad, max_tokens=1)), MESSAGES)
    good = [{"role": "user", "content": "hi"}]
    of_template: dict[str, list[Any]] = {
        "chat_template_kwargs": [5, {"a": object()}],
        "tools": [5, ["a"]],
    }
    yield from each_option("template", partial(template, good), of_template)
    tool = {"type": "function", "function": {"name": "a"}}
    of_tools: dict[str, list[Any]] = {
        "tools": [5, ["a"], [tool, tool], [{"type": "function"}], [object()], [tool] * 200,
                  [{"type": "function", "function": {"name": "a", "parameters": nested(5000)}}]],
        "tool_choice": [5, "required", {"type": "function", "function": {"name": "b"}}],
        "parallel_tool_calls": ["a", 5],
    }  # fmt: skip
    yield from each_option("chat", partial(model.chat, good, max_tokens=1), of_tools)


def of_models(path: Path) -> Iterator[Call]:
    model: Any = sterna.Model
    yield from each("Model", model, PATHS)
    yield from each("inspect", sterna.inspect, PATHS)
    yield from each("doctor", doctor, PATHS)
    yield from each("verify", partial(sterna.verify, path), PATHS)
    yield from each("convert", lambda bad: sterna.convert(bad, "out.sterna"), PATHS)
    options: dict[str, list[Any]] = {
        "threads": [0, -1, HUGE, "a", 1.5],
        "kv": ["f64", 5],
        "memory": ["far", 5],
        "kernels": ["none", 5],
        "context": [0, -1, HUGE, "a", 10**9],
        "kv_memory": ["much", "-1", 5, "0", ""],
        "parallel": [0, -1, HUGE, "a"],
        "unknown": [1],
    }
    yield from each_option("Model", partial(model, path), options)
    yield "two paths", lambda: model(path, path)
    yield "no path", lambda: model()


def doctor(path: Any) -> None:
    """A file without a model can be a finding of the checks instead of an error."""
    if sterna.doctor(path)["broken"]:
        raise ValueError("broken")


def of_sessions(model: Any) -> Iterator[Call]:
    yield from each("session", model.session, [0, -1, HUGE, "a", 1.5, 10**12])
    session = model.session()
    yield "logits of an empty session", session.next_logits
    yield from each("truncate", session.truncate, [-1, 1, HUGE, "a", None])
    closed = model.session()
    closed.close()
    yield "closed logits", closed.next_logits
    yield "closed fork", closed.fork
    yield "closed feed", partial(closed.feed, [5])
    yield "closed truncate", partial(closed.truncate, 0)
    stream = model.stream("Once", ignore_eos=True)
    stream.close()
    yield "result of a closed stream", stream.result


def of_tokenizers(tokenizer: Any) -> Iterator[Call]:
    texts = [5, None, b"a", "\ud800", ["a"]]
    yield from each("encode", tokenizer.encode, texts)
    yield from each("token_to_id", tokenizer.token_to_id, texts)
    for name in ("token_bytes", "id_to_token", "is_special"):
        yield from each(name, getattr(tokenizer, name), [-1, HUGE, 2**40, "a", 1.5, None])


def of_files(path: Path) -> Iterator[Call]:
    convert: Any = sterna.convert
    outs = [None, 5, "", "no/such/folder/a.sterna", "a\0b", ".", "/proc/a.sterna"]
    yield from each("convert to", partial(convert, path), outs)
    names = ("to", "packing", "head", "activations", "pre", "i2s_order", "kernel_config")
    values: dict[str, list[Any]] = {name: ["nonsense", 5] for name in names}
    yield from each_option("convert", partial(convert, path, "out.sterna"), values)
    of_inspect: dict[str, list[Any]] = {"context": [-1, HUGE, "a"], "verify": ["a"], "none": [1]}
    yield from each_option("inspect", partial(sterna.inspect, path), of_inspect)
    yield from each_option("verify", partial(sterna.verify, path, path), {"unknown": [1]})


def of_trainers() -> Iterator[Call]:
    def run(recipe: Any = GOOD, out: Any = "run", callback: Any = None, **options: Any) -> object:
        return sterna.Trainer(recipe, out=out, **options).run(callback)

    recipes: list[Any] = [
        None, 5, {}, {"model": 5}, {"train": {"steps": "a"}}, {"nonsense": {}}, "no such.toml",
        "a = \n", "[train]\nsteps = -1\n", {"data": {"text": object()}}, {"data": circle()},
        {"train": {"learning_rate": math.nan}}, {"train": {"steps": HUGE}}, {5: 5}, b"a\n", ["a"],
    ]  # fmt: skip
    yield from each("recipe", run, recipes)
    options: dict[str, list[Any]] = {
        "preset": ["nonsense", 5],
        "out": [5, None, "", "a\0b", "text"],
        "set": [5, {"nonsense": 1}, {"train.steps": object()}, {"train.steps": -1}, {5: 5}],
        "threads": [0, -1, HUGE, "a"],
        "callback": [5, lambda: None],
    }
    yield from each_option("Trainer", run, options)
    trainer: Any = sterna.Trainer
    yield "no folder", lambda: trainer(GOOD)
    yield "a preset without texts", lambda: trainer(preset="tiny-1m", out="run").run()


def of_servers(path: Path) -> Iterator[Call]:
    serve: Any = sterna.serve
    yield from each("serve", serve, [*PATHS, [5], [None]])
    options: dict[str, list[Any]] = {
        "port": [-1, 70_000, HUGE, "a", 1.5],
        "host": ["256.0.0.1", 5, "a\0b", "no such host.invalid"],
        "names": [5, ["a", "b"]],
        "kv": ["f64"],
        "threads": [0, -1],
        "context": [-1, "a"],
        "kv_memory": ["much", 5],
        "api_key_file": ["missing", 5],
        "key_weights": [["a"]],
        "draft": ["missing", 5],
        "no_such_option": [1],
    }
    yield from each_option("serve", partial(serve, path), options)


def subclass(of: type) -> type:
    return type("Mine", (of,), {})


def of_objects(model: Any, path: Path) -> Iterator[Call]:
    made = ("Session", "Completion", "Stream", "Tokenizer", "Score", "Usage")
    for name in made:
        yield f"{name}()", getattr(sterna, name)
    for name in (*made, "Model", "Trainer", "Server"):
        yield f"a {name} of one's own", partial(subclass, getattr(sterna, name))
    values = [model, model.session(), model.tokenizer, model.stream("a", max_tokens=1)]
    yield from each("pickle", pickle.dumps, values)
    yield from each("copy", copy.deepcopy, values)
    yield from each("order of", lambda value: value < value, values)
    closed: Any = sterna.Model(path)
    closed.close()
    closed.close()
    yield "closed score", partial(closed.score, "Once", " Mia")
    yield "closed session", closed.session
    for name in ("generate", "embed", "stream", "generate_batch", "score_batch", "logits"):
        argument = [] if name.endswith("batch") else [5]
        yield f"closed {name}", partial(getattr(closed, name), argument)


def files(models: Path) -> None:
    """Files without models, in the current folder."""
    os.mkdir("empty")
    Path("text").write_text("no model\n")
    whole = (models / "model.sterna").read_bytes()
    Path("half").write_bytes(whole[: len(whole) // 2])


def main() -> None:
    models, folder = (Path(arg).resolve() for arg in sys.argv[1:3])
    os.chdir(folder)
    files(models)
    path = models / "model.sterna"
    model = sterna.Model(path)
    expected = model.generate("Once Mia", max_tokens=8)
    parts = [
        of_prompts(model),
        of_options(model),
        of_chats(model),
        of_models(path),
        of_sessions(model),
        of_tokenizers(model.tokenizer),
        of_files(path),
        of_trainers(),
        of_servers(path),
        of_objects(model, path),
    ]
    for part in parts:
        for name, call in part:
            print(json.dumps({"call": name}), flush=True)
            try:
                result = repr(call())
                outcome = f"returned {result:.100}"
            except EXPECTED as error:
                outcome = "fine" if str(error) else f"an empty message of {type(error)}"
            except BaseException as error:
                outcome = f"raised {type(error).__name__}: {str(error):.200}"
            print(json.dumps({"outcome": outcome}), flush=True)
        # The model goes on as before.
        assert model.generate("Once Mia", max_tokens=8) == expected


if __name__ == "__main__":
    main()
