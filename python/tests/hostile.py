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
               circle(), {5: {}}, '{"type": "string"', {"enum": []}, False,
               {"pattern": "(", "type": "string"}, {"const": "\ud800"}],
    "regex": [5, "(", "a{100000000}", "(?=a)a", "\ud800", "(" * 100_000],
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


def of_prompts(model: sterna.Model) -> Iterator[Call]:
    session = model.session()
    functions: dict[str, Callable[[Any], object]] = {
        "generate": lambda bad: model.generate(bad, max_tokens=1),
        "stream": lambda bad: list(model.stream(bad, max_tokens=1)),
        "agenerate": lambda bad: asyncio.run(model.agenerate(bad, max_tokens=1)),
        "batch": lambda bad: model.generate_batch(["Once", bad], max_tokens=1),
        "score": lambda bad: model.score(bad, [5]),
        "score of": lambda bad: model.score([5], bad),
        "score_batch": lambda bad: model.score_batch([([5], [6]), ([5], bad)]),
        "embed": lambda bad: model.embed([bad]),
    }
    for name, function in functions.items():
        for bad in IDS + TEXTS:
            yield f"{name} {bad!r:.60}", lambda f=function, b=bad: f(b)  # type: ignore[misc]
    of_ids: dict[str, Callable[[Any], object]] = {
        "logits": model.logits,
        "feed": session.feed,
        "feed_logits": session.feed_logits,
        "decode": model.tokenizer.decode,
    }
    for name, function in of_ids.items():
        # Any number of tokens that exist can be decoded.
        for bad in [*(IDS[:-2] if name == "decode" else IDS), "a text"]:
            yield f"{name} {bad!r:.60}", lambda f=function, b=bad: f(b)  # type: ignore[misc]


def of_options(model: sterna.Model) -> Iterator[Call]:
    def call(function: Any, name: str, value: Any) -> Callable[[], object]:
        return lambda: function("Once", max_tokens=1, **{name: value})

    for name, values in OPTIONS.items():
        for value in values:
            if name == "max_tokens":
                yield f"{name} {value!r:.60}", lambda v=value: model.generate(  # type: ignore[misc]
                    "Once", max_tokens=v
                )
            else:
                yield f"{name} {value!r:.60}", call(model.generate, name, value)
        yield f"stream {name}", call(model.stream, name, values[0])
    generate: Any = model.generate
    yield "two rules", lambda: generate("a", regex="a", choice=["a"])
    yield "no prompt", lambda: generate()
    yield "two prompts", lambda: generate("a", "b")
    yield "an option by place", lambda: generate("a", 5)
    yield "batch of a text", lambda: model.generate_batch("Once", max_tokens=1, seed=-1)
    yield "batch of nothing known", lambda: model.generate_batch(5)  # type: ignore[arg-type]


def of_chats(model: sterna.Model) -> Iterator[Call]:
    apply: Any = model.apply_chat_template
    for bad in MESSAGES:
        yield f"chat {bad!r:.60}", lambda b=bad: model.chat(b, max_tokens=1)  # type: ignore[misc]
        yield f"template {bad!r:.60}", lambda b=bad: apply(b)  # type: ignore[misc]
        yield (
            f"chat_stream {bad!r:.60}",
            lambda b=bad: list(model.chat_stream(b, max_tokens=1)),  # type: ignore[misc]
        )
    good = [{"role": "user", "content": "hi"}]
    yield "kwargs", lambda: apply(good, chat_template_kwargs=5)
    yield "object in kwargs", lambda: apply(good, chat_template_kwargs={"a": object()})
    yield "tools", lambda: apply(good, tools=5)
    yield "tools of texts", lambda: apply(good, tools=["a"])


def of_models(path: Path) -> Iterator[Call]:
    model: Any = sterna.Model
    for bad in PATHS:
        yield f"Model {bad!r:.60}", lambda b=bad: model(b)  # type: ignore[misc]
        yield f"inspect {bad!r:.60}", lambda b=bad: sterna.inspect(b)  # type: ignore[misc]
        yield f"doctor {bad!r:.60}", lambda b=bad: doctor(b)  # type: ignore[misc]
        yield f"verify {bad!r:.60}", lambda b=bad: sterna.verify(path, b)  # type: ignore[misc]
        yield (
            f"convert {bad!r:.60}",
            lambda b=bad: sterna.convert(b, "out.sterna"),  # type: ignore[misc]
        )
    options: dict[str, list[Any]] = {
        "threads": [0, -1, HUGE, "a", 1.5],
        "kv": ["f64", 5, None],
        "memory": ["far", 5],
        "kernels": ["none", 5],
        "context": [0, -1, HUGE, "a", 10**9],
        "kv_memory": ["much", "-1", 5, "0", ""],
        "parallel": [0, -1, HUGE, "a"],
        "unknown": [1],
    }
    for name, values in options.items():
        for value in values:
            yield (
                f"Model {name} {value!r:.60}",
                lambda n=name, v=value: model(path, **{n: v}),  # type: ignore[misc]
            )
    yield "two paths", lambda: model(path, path)
    yield "no path", lambda: model()


def doctor(path: Any) -> None:
    """A file that is no model can be a finding of the checks instead of an error."""
    if sterna.doctor(path)["broken"]:
        raise ValueError("broken")


def of_sessions(model: sterna.Model) -> Iterator[Call]:
    for bad in (0, -1, HUGE, "a", 1.5, 10**12):
        yield f"session {bad}", lambda b=bad: model.session(b)  # type: ignore[misc]
    session: Any = model.session()
    yield "logits of an empty session", session.next_logits
    for bad in (-1, 1, HUGE, "a", None):
        yield f"truncate {bad}", lambda b=bad: session.truncate(b)  # type: ignore[misc]
    closed: Any = model.session()
    closed.close()
    for name in ("next_logits", "fork"):
        yield f"closed {name}", lambda n=name: getattr(closed, n)()  # type: ignore[misc]
    yield "closed feed", lambda: closed.feed([5])
    yield "closed truncate", lambda: closed.truncate(0)
    stream = model.stream("Once", ignore_eos=True)
    stream.close()
    yield "result of a closed stream", stream.result


def of_tokenizers(model: sterna.Model) -> Iterator[Call]:
    tokenizer: Any = model.tokenizer
    for text in (5, None, b"a", "\ud800", ["a"]):
        yield f"encode {text!r}", lambda t=text: tokenizer.encode(t)  # type: ignore[misc]
        yield f"token_to_id {text!r}", lambda t=text: tokenizer.token_to_id(t)  # type: ignore[misc]
    for id in (-1, HUGE, 2**40, "a", 1.5, None):
        for name in ("token_bytes", "id_to_token", "is_special"):
            yield f"{name} {id}", lambda n=name, i=id: getattr(tokenizer, n)(i)  # type: ignore[misc]


def of_files(path: Path) -> Iterator[Call]:
    convert: Any = sterna.convert
    outs: list[Any] = [None, 5, "", "no/such/folder/a.sterna", "a\0b", ".", "/proc/a.sterna"]
    for out in outs:
        yield f"convert to {out!r}", lambda o=out: convert(path, o)  # type: ignore[misc]
    for name in ("to", "packing", "head", "activations", "pre", "i2s_order", "kernel_config"):
        for value in ("nonsense", 5):
            yield (
                f"convert {name} {value!r}",
                lambda n=name, v=value: convert(path, "out", **{n: v}),  # type: ignore[misc]
            )
    yield "context", lambda: sterna.inspect(path, context=-1)
    yield "huge context", lambda: sterna.inspect(path, context=HUGE)
    yield "an option", lambda: sterna.verify(path, path, nonsense=1)  # type: ignore[call-arg]
    trainer: Any = sterna.Trainer
    recipes: list[Any] = [
        None, 5, {}, {"model": 5}, {"train": {"steps": "a"}}, {"nonsense": {}}, "no such.toml",
        "a = \n", "[train]\nsteps = -1\n", {"data": {"text": object()}}, {"data": circle()},
        {"train": {"learning_rate": math.nan}}, {"train": {"steps": HUGE}}, {5: 5}, b"a\n", ["a"],
    ]  # fmt: skip
    for recipe in recipes:
        yield f"recipe {recipe!r:.60}", lambda r=recipe: trainer(r, out="run").run()  # type: ignore[misc]
    yield "preset", lambda: trainer(preset="nonsense", out="run")
    yield "no folder", lambda: trainer(preset="tiny-1m")
    for out in (5, None, "", "a\0b", "text"):
        yield f"out {out!r}", lambda o=out: trainer(GOOD, out=o).run()  # type: ignore[misc]
    for values in (5, {"nonsense": 1}, {"train.steps": object()}, {"train.steps": -1}, {5: 5}):
        yield f"set {values!r}", lambda v=values: trainer(GOOD, out="run", set=v).run()  # type: ignore[misc]
    for threads in (0, -1, HUGE, "a"):
        yield f"threads {threads}", lambda t=threads: trainer(GOOD, out="run", threads=t).run()  # type: ignore[misc]
    yield "no callback", lambda: trainer(GOOD, out="run").run(5)
    yield "a callback of nothing", lambda: trainer(GOOD, out="run").run(lambda: None)


def of_servers(path: Path) -> Iterator[Call]:
    serve: Any = sterna.serve
    for bad in [*PATHS, [5], [None]]:
        yield f"serve {bad!r}", lambda b=bad: serve(b)  # type: ignore[misc]
    options: dict[str, list[Any]] = {
        "port": [-1, 70_000, HUGE, "a", 1.5],
        "host": ["256.0.0.1", 5, "a\0b", "no such host.invalid"],
        "name": [5, ["a", "b"]],
        "kv": ["f64"],
        "threads": [0, -1],
        "context": [-1, "a"],
        "kv_memory": ["much", 5],
        "api_key_file": ["missing", 5],
        "key_weights": [5, ["a"]],
        "draft": ["missing", 5],
        "no_such_option": [1],
    }
    for name, values in options.items():
        for value in values:
            yield (
                f"serve {name} {value!r}",
                lambda n=name, v=value: serve(path, **{n: v}),  # type: ignore[misc]
            )


def of_objects(model: sterna.Model, path: Path) -> Iterator[Call]:
    done = model.generate("Once", max_tokens=1)
    for kind in ("Session", "Completion", "Stream", "AsyncStream", "Tokenizer", "Score", "Usage"):
        yield f"{kind}()", getattr(sterna, kind)
        yield f"a {kind}", lambda k=kind: type("Mine", (getattr(sterna, k),), {})  # type: ignore[misc]
    for name in ("Model", "Trainer", "Server"):
        yield f"a {name}", lambda n=name: type("Mine", (getattr(sterna, n),), {})  # type: ignore[misc]
    for value in (model, model.session(), model.tokenizer, model.stream("a", max_tokens=1)):
        yield f"pickle {value!r:.60}", lambda v=value: pickle.dumps(v)  # type: ignore[misc]
        yield f"copy {value!r:.60}", lambda v=value: copy.deepcopy(v)  # type: ignore[misc]
        yield f"order of {value!r:.60}", lambda v=value: v < v  # type: ignore[misc]
    yield "sum", lambda: done + done  # type: ignore[operator]
    closed: Any = sterna.Model(path)
    session = closed.session()
    closed.close()
    closed.close()
    for name in ("generate", "embed", "stream", "chat_stream"):
        yield f"closed {name}", lambda n=name: getattr(closed, n)("Once")  # type: ignore[misc]
    yield "closed score", lambda: closed.score("Once", " Mia")
    yield "closed logits", lambda: closed.logits([5])
    yield "closed session", closed.session
    yield "closed batch", lambda: closed.generate_batch(["Once"])
    yield "session of a closed model", lambda: session.feed([5])


GOOD: dict[str, Any] = {
    "model": {"family": "bitnet", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 1, "num_attention_heads": 1},
    "data": {"mix": "stories=1", "documents": 50, "vocab_size": 280},
    "train": {"steps": 2, "batch": 1, "context": 32},
}  # fmt: skip


def files(models: Path) -> None:
    """Files that are no models, in the current folder."""
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
        of_tokenizers(model),
        of_files(path),
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
