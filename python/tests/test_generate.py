"""Text: its pieces, its options, and that it is the text of the command line."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest

import sterna
from conftest import Program

PROMPTS = ["Once Mia", "Once Tom sat in the barn.", "Ana", ""]


def test_the_parts_of_a_completion(model: sterna.Model) -> None:
    done = model.generate("Once Mia", max_tokens=8)
    assert done.finish_reason == "length" and done.stop_token is None and done.stop_text is None
    assert len(done.tokens) == done.usage.completion_tokens == 8
    assert model.tokenizer.decode(done.tokens) == done.text
    assert done.usage.prompt_tokens == len(model.tokenizer.encode("Once Mia"))
    assert done.logprobs is None and done.prompt_logprobs is None
    assert "Completion" in repr(done)


def test_a_text_ends_where_the_model_ends_it(model: sterna.Model) -> None:
    done = model.generate("Once Mia")
    assert done.finish_reason == "stop" and done.stop_token in model.tokenizer.eos_token_ids
    assert done.usage.completion_tokens == len(done.tokens) + 1


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.8, "seed": 1},
        {"temperature": 1.5, "seed": 2**53, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
        {"temperature": 1.0, "seed": 7, "repetition_penalty": 1.3},
        {"stop": ["."]},
    ],
)
def test_bytes_are_those_of_the_command_line(
    model: sterna.Model, program: Program, prompt: str, options: dict[str, Any]
) -> None:
    flags: list[object] = ["-n", 24]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        flags += [part for one in values for part in ("--" + name.replace("_", "-"), one)]
    found = program.json("generate", model.path, "--prompt", prompt, *flags)
    done = model.generate(prompt, max_tokens=24, **options)
    assert done.text == found["text"]
    ends = [] if done.stop_token is None else [done.stop_token]
    assert found["ids"][: len(done.tokens)] == done.tokens
    assert found["ids"] == done.tokens + ends or done.stop_text is not None
    assert done.usage.prompt_tokens == len(found["prompt_ids"])


def test_a_chat_is_that_of_the_command_line(long_model: sterna.Model, program: Program) -> None:
    found = program.json(
        "generate", long_model.path, "--chat", "--system", "Be brief.", "--prompt", "Hi", "-n", 16
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert long_model.chat(messages, max_tokens=16).text == found["text"]
    ids = long_model.tokenizer.encode(
        long_model.apply_chat_template(messages), add_special_tokens=False
    )
    assert ids == found["prompt_ids"]


def test_rules_are_kept(model: sterna.Model, program: Program, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Mia", "Tom"]}, "age": {"type": "integer", "maximum": 9}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text = model.generate("Once", schema=schema, max_tokens=60).text
    assert json.loads(text)["name"] in ("Mia", "Tom")
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    by_program = program.json(
        "generate", model.path, "Once", "-n", 60, "--schema", tmp_path / "schema.json"
    )
    assert text == by_program["text"]
    # A schema may also be text.
    assert model.generate("Once", schema=json.dumps(schema), max_tokens=60).text == text
    assert model.generate("Once", regex="[ab]{3}").text in {
        a + b + c for a in "ab" for b in "ab" for c in "ab"
    }
    assert model.generate("Once", choice=["left", "right"]).text in ("left", "right")
    assert model.generate("Once", grammar='start: "x"~3').text == "xxx"


def test_stop_texts_and_what_is_left_of_them(model: sterna.Model) -> None:
    whole = model.generate("Once Mia").text
    stop = whole[5:8]
    done = model.generate("Once Mia", stop=stop)
    assert done.text == whole[: whole.index(stop)]
    assert done.finish_reason == "stop" and done.stop_text == stop
    kept = model.generate("Once Mia", stop=[stop, "@"], include_stop_str_in_output=True)
    assert kept.text == done.text + stop


def test_biases_and_the_end(model: sterna.Model) -> None:
    first = model.generate("Once Mia", max_tokens=1).tokens[0]
    other = model.generate("Once Mia", max_tokens=1, logit_bias={first: -100}).tokens[0]
    assert other != first
    forced = model.generate("Once Mia", max_tokens=3, logit_bias={5: 100.0})
    assert forced.tokens == [5, 5, 5]
    done = model.generate("Once Mia", ignore_eos=True)
    assert done.finish_reason == "length"
    assert done.usage.prompt_tokens + done.usage.completion_tokens >= model.context - 1


def test_log_probabilities(model: sterna.Model) -> None:
    done = model.generate("Once Mia", max_tokens=6, logprobs=3, prompt_logprobs=0)
    assert done.logprobs is not None and done.prompt_logprobs is not None
    assert [token.id for token in done.logprobs] == done.tokens
    assert done.prompt_logprobs[0].logprob is None
    for token in done.logprobs:
        assert token.rank == 1 and len(token.top) == 3 and token.top[0] == (token.id, token.logprob)
    prompt = model.tokenizer.encode("Once Mia")
    score = model.score(prompt, done.tokens)
    assert score.logprob == pytest.approx(sum(t.logprob or 0 for t in done.logprobs), abs=1e-5)


def test_pieces_are_the_text(model: sterna.Model) -> None:
    for prompt in PROMPTS:
        stream = model.stream(prompt, temperature=1.2, seed=3, max_tokens=30)
        pieces = list(stream)
        assert all(pieces) and "".join(pieces) == stream.result().text
        assert stream.result() == model.generate(prompt, temperature=1.2, seed=3, max_tokens=30)


def test_a_batch_gives_each_text_as_it_is_alone(model: sterna.Model) -> None:
    prompts: list[Any] = [*PROMPTS, model.tokenizer.encode("Once Ivy")] * 4
    options: Any = {"max_tokens": 20, "temperature": 0.9, "seed": 5}
    together = model.generate_batch(prompts, **options)
    alone = [model.generate(prompt, cache_prompt=False, **options) for prompt in prompts]
    assert together == alone
    assert model.generate_batch([]) == []


def test_kinds_of_cache_and_threads(models: Path, model: sterna.Model) -> None:
    expected = model.generate("Once Mia", max_tokens=30)
    with sterna.Model(models / "model.sterna", threads=1, memory="copy", parallel=1) as other:
        assert other.generate("Once Mia", max_tokens=30) == expected
        assert other.threads == 1 and other.fingerprint == model.fingerprint
    with sterna.Model(models / "model.sterna", kv="q8", context=64) as other:
        assert other.fingerprint != model.fingerprint and other.context == 64
    # A folder is packed once and kept.
    with sterna.Model(models / "model") as other:
        assert other.generate("Once Mia", max_tokens=30) == expected


def test_async_forms(model: sterna.Model, long_model: sterna.Model) -> None:
    async def all_forms() -> None:
        many = [model.agenerate(prompt, max_tokens=12) for prompt in PROMPTS]
        found = await asyncio.gather(*many)
        assert found == [model.generate(prompt, max_tokens=12) for prompt in PROMPTS]
        stream = model.astream("Once Mia", max_tokens=12)
        pieces = [piece async for piece in stream]
        assert "".join(pieces) == (await stream.result()).text == found[0].text
        messages = [{"role": "user", "content": "Hi"}]
        answer = await long_model.achat(messages, max_tokens=12)
        async with long_model.achat_stream(messages, max_tokens=12) as chat:
            assert "".join([piece async for piece in chat]) == answer.text
        assert answer == long_model.chat(messages, max_tokens=12)

    asyncio.run(all_forms())


def test_a_conversation_goes_on(long_model: sterna.Model) -> None:
    messages = [{"role": "user", "content": "one two three"}]
    answer = long_model.chat(messages, max_tokens=20)
    stream = long_model.chat_stream(messages, max_tokens=20)
    assert "".join(stream) == answer.text
    messages += [{"role": "assistant", "content": answer.text}]
    text = long_model.apply_chat_template(messages, continue_final_message=True)
    assert text.endswith(answer.text.strip())
    assert long_model.apply_chat_template(messages, add_generation_prompt=True) != text


def test_options_are_checked_by_name(model: sterna.Model) -> None:
    with pytest.raises(TypeError, match="max_token"):
        model.generate("Once", max_token=3)  # type: ignore[call-arg]
    with pytest.raises(sterna.UsageError, match="temperature"):
        model.generate("Once", temperature=-1)
    with pytest.raises(sterna.ContextError):
        model.generate(cast(Any, [5] * 200))
