"""The model for lm-evaluation-harness; three_ways.py compares its figures with others."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sterna

WITHOUT = """
import sys
sys.modules["lm_eval"] = None
import sterna
try:
    import sterna.lm_eval
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_the_harness_the_error_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60
    )
    assert "pip install lm_eval" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def harness() -> Any:
    pytest.importorskip("lm_eval")
    import sterna.lm_eval

    return sterna.lm_eval


class Request:
    """What the harness asks."""

    def __init__(self, *args: object) -> None:
        self.args = args


def test_log_likelihoods(harness: Any, model: sterna.Model) -> None:
    lm = harness.LM(model, batch_size=3)
    pairs = [("Once Mia", " sat in the barn."), ("Once Mia ", "sat"), ("", "Once Mia"), ("A", "b")]
    found = lm.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True)
    assert found[0] == tuple(model.score("Once Mia", " sat in the barn."))
    # Spaces at the end of a context belong to what follows.
    assert found[1] == tuple(model.score("Once Mia", " sat"))
    ids = model.tokenizer.encode("Once Mia", add_special_tokens=False)
    assert found[2] == tuple(model.score([lm.prefix_token_id], ids))
    # What does not fit is cut off on the left.
    whole = model.tokenizer.encode("Once Mia sat in the barn. " * 20)
    (cut,) = lm._loglikelihood_tokens([(None, whole, [5])], disable_tqdm=True)
    assert cut == tuple(model.score(whole[-model.context :], [5]))
    with pytest.raises(ValueError, match="empty"):
        lm._loglikelihood_tokens([(None, [], [5])], disable_tqdm=True)
    with pytest.raises(ValueError, match="expected 1 to"):
        lm._loglikelihood_tokens([(None, [5], [])], disable_tqdm=True)


def test_texts_longer_than_the_context(harness: Any, model: sterna.Model) -> None:
    lm = harness.LM(model, max_length=16)
    text = "Once Mia sat in the barn. " * 9
    (found,) = lm.loglikelihood_rolling([Request(text)], disable_tqdm=True)
    ids = [lm.prefix_token_id, *model.tokenizer.encode(text, add_special_tokens=False)]
    expected = 0.0
    for start in range(1, len(ids), 16):
        end = min(start + 16, len(ids))
        begin = 0 if start == 1 else end - 17
        expected += model.score(ids[begin:start], ids[start:end]).logprob
    assert found == pytest.approx(expected, abs=1e-9)


def test_texts_that_are_written(harness: Any, model: sterna.Model) -> None:
    lm = harness.LM(model, max_gen_toks=12)
    prompts = ["Once Mia", "Once Tom", "Once Ana sat in the barn."]
    asked = {"until": ["."], "do_sample": False}
    found = lm.generate_until([Request(prompt, asked) for prompt in prompts], disable_tqdm=True)
    assert found == [model.generate(p, max_tokens=12, stop=["."]).text for p in prompts]
    sampled = {"until": [], "do_sample": True, "temperature": 1.0, "top_p": 0.9}
    many = lm.generate_until([Request("Once", sampled)] * 4, disable_tqdm=True)
    assert len(set(many)) > 1
    assert many == lm.generate_until([Request("Once", sampled)] * 4, disable_tqdm=True)
    with pytest.raises(ValueError, match="num_beams"):
        lm.generate_until([Request("Once", {"num_beams": 4})], disable_tqdm=True)
    with pytest.raises(ValueError, match="max_gen_toks"):
        lm.generate_until([Request("Once", {"max_gen_toks": 1000})], disable_tqdm=True)


def test_templates_and_options(harness: Any, models: Path) -> None:
    from lm_eval.api.registry import get_model

    assert get_model("sterna") is harness.LM and get_model("dummy") is not None
    path = models / "chat.sterna"
    lm = harness.LM.create_from_arg_string(f"pretrained={path},kv=q8,max_length=64", {})
    messages = [{"role": "user", "content": "hi"}]
    assert lm.apply_chat_template(messages) == lm.model.apply_chat_template(messages)
    begun = [*messages, {"role": "assistant", "content": "well"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False).endswith("well")
    assert "capitalize" in lm.chat_template(True) and lm.chat_template(False) is None
    assert lm.tokenizer_name and "/" not in lm.tokenizer_name
    with pytest.raises(TypeError, match="kv"):
        harness.LM(lm.model, kv="f32")
    with pytest.raises(ValueError, match="max_length"):
        harness.LM(lm.model, max_length=10**6)
