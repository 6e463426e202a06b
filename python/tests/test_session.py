"""Sessions, logits, scores and vectors, with numpy as a second opinion."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sterna
from conftest import Program


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return logs


def safetensors(path: Path, name: str) -> NDArray[np.float32]:
    """A tensor of f32 in a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    assert entry["dtype"] == "F32"
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    return np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])


def test_logits_are_those_of_the_command_line(
    model: sterna.Model, program: Program, tmp_path: Path
) -> None:
    ids = model.tokenizer.encode("Once Mia sat in the barn")
    out = tmp_path / "logits.safetensors"
    program("logits", model.path, "--ids", ",".join(map(str, ids)), "--out", out)
    found = model.logits(ids)
    assert found.dtype == np.float32 and found.shape == (len(ids), model.vocab_size)
    assert found.tobytes() == safetensors(out, "logits").tobytes()


def test_any_sequence_of_integers_is_ids(model: sterna.Model) -> None:
    expected = model.logits([3, 4, 5]).tobytes()
    for kind in (np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        assert model.logits(np.array([3, 4, 5], kind)).tobytes() == expected
    strided = np.array([3, 0, 4, 0, 5, 0])[::2]
    assert model.logits(strided).tobytes() == expected
    assert model.logits((3, 4, 5)).tobytes() == expected
    with pytest.raises(sterna.UsageError):
        model.logits([])


def test_a_session_gives_the_logits_of_the_model(model: sterna.Model) -> None:
    ids = model.tokenizer.encode("Once Mia sat in the barn")
    expected = model.logits(ids)
    with model.session() as session:
        session.feed(ids[:3])
        assert session.next_logits().tobytes() == expected[2].tobytes()
        assert session.feed_logits(ids[3:]).tobytes() == expected[3:].tobytes()
        assert session.tokens == ids and len(session) == len(ids)
        branch = session.fork()
        session.truncate(3)
        assert session.tokens == ids[:3] and branch.tokens == ids
        session.feed([7])
        branch.truncate(4)
        branch.feed(ids[4:])
        assert branch.next_logits().tobytes() == expected[-1].tobytes()
    with pytest.raises(sterna.ClosedError):
        session.feed([1])
    assert branch.next_logits().shape == (model.vocab_size,)


def test_a_session_stays_as_it_was_after_an_error(model: sterna.Model) -> None:
    session = model.session(capacity=8)
    assert session.capacity == 8
    session.feed([3, 4, 5])
    before = session.next_logits().tobytes()
    with pytest.raises(sterna.ContextError):
        session.feed([6] * 6)
    with pytest.raises(sterna.Error):
        session.feed([10**6])
    assert session.tokens == [3, 4, 5] and session.next_logits().tobytes() == before


def test_the_most_probable_tokens_make_the_text(model: sterna.Model) -> None:
    session = model.session()
    session.feed(model.tokenizer.encode("Once Mia"))
    tokens: list[int] = []
    while len(tokens) < 16:
        tokens.append(int(session.next_logits().argmax()))
        session.feed(tokens[-1:])
    assert tokens == model.generate("Once Mia", max_tokens=16, ignore_eos=True).tokens


def test_scores_are_sums_of_log_softmax(model: sterna.Model) -> None:
    prompt, continuation = "Once Mia", " sat in the barn."
    ids = model.tokenizer.encode(prompt + continuation)
    start = len(model.tokenizer.encode(prompt))
    rows = log_softmax(model.logits(ids[:-1]))[start - 1 :]
    expected = sum(row[id] for row, id in zip(rows, ids[start:], strict=True))
    score = model.score(prompt, continuation)
    assert score.num_tokens == len(ids) - start
    assert score.logprob == pytest.approx(expected, abs=1e-9)
    assert score.is_greedy == all(rows.argmax(axis=1) == ids[start:])
    assert tuple(score) == (score.logprob, score.is_greedy)
    assert model.score(ids[:start], ids[start:]) == score
    greedy = model.generate(prompt, max_tokens=5).tokens
    assert model.score(ids[:start], greedy).is_greedy


def test_scores_of_a_batch_are_those_alone(model: sterna.Model) -> None:
    pairs: list[tuple[Any, Any]] = [
        (f"Once {name}", f" {verb} in the {place}.")
        for name in ("Mia", "Tom", "Ana")
        for verb in ("sat", "was")
        for place in ("barn", "park", "grey boat")
    ]
    pairs.append(([3, 4, 5], np.array([6, 7])))
    assert model.score_batch(pairs) == [model.score(a, b) for a, b in pairs]
    assert model.score_batch([]) == []
    # The last token is only predicted, so it may be one more than the context.
    assert model.score([5], [6] * model.context).num_tokens == model.context
    with pytest.raises(sterna.ContextError):
        model.score([5], [6] * (model.context + 1))


def test_vectors_are_those_of_the_command_line(models: Path, program: Program) -> None:
    texts = ["a tern", "two terns on a roof", "x"]
    with sterna.Model(models / "embed.sterna") as model:
        vectors = model.embed(texts)
        assert vectors.shape == (3, model.hidden_size) and vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert model.embed("a tern").tobytes() == vectors[0].tobytes()
        assert model.embed([]).shape == (0, model.hidden_size)
        flags = [part for text in texts for part in ("--text", text)]
        lines = program("embed", model.path, *flags, "--json").splitlines()
    printed = np.array([json.loads(line)["embedding"] for line in lines], np.float32)
    assert printed.tobytes() == vectors.tobytes()


def test_the_tokenizer(model: sterna.Model) -> None:
    tokenizer = model.tokenizer
    for text in ("Once Mia", "naïve 日本 🐟", " \n\t", ""):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert len(tokenizer) == tokenizer.vocab_size <= model.vocab_size
    name = tokenizer.id_to_token(0)
    assert name is not None and tokenizer.token_to_id(name) == 0 and tokenizer.is_special(0)
    assert tokenizer.token_to_id("no token") is None
    assert tokenizer.encode("Mia")[0] == model.prefix_token_id
    # The tokenizer outlives its model.
    assert sterna.Model(model.path).tokenizer.encode("Mia") == tokenizer.encode("Mia")
