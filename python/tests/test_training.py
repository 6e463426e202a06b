"""Training, conversion and the facts about models, as the command line has them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

import sterna
from conftest import FIXTURES, Program
from sterna.types import TrainingMetrics

RECIPE: dict[str, Any] = {
    "model": {
        "family": "bitnet",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "data": {"mix": "stories=1", "documents": 400, "vocab_size": 300},
    "train": {"steps": 8, "batch": 2, "context": 64, "learning_rate": 1e-3, "warmup": 2},
}


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def toml(recipe: dict[str, Any]) -> str:
    lines = []
    for table, values in recipe.items():
        lines.append(f"[{table}]")
        lines += (f"{key} = {json.dumps(value)}" for key, value in values.items())
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    sterna.Trainer(RECIPE, out=out).run()
    return out


def test_a_run_and_its_bytes(trained: Path, program: Program, tmp_path: Path) -> None:
    steps: list[int] = []
    losses: list[float] = []

    def callback(step: int, metrics: TrainingMetrics) -> None:
        if "loss" in metrics:
            steps.append(step)
            losses.append(metrics["loss"])

    trainer = sterna.Trainer(toml(RECIPE), out=tmp_path / "run")
    assert trainer.recipe["train"]["steps"] == 8 and trainer.out == str(tmp_path / "run")
    outcome = trainer.run(callback)
    assert outcome["step"] == 8 and not outcome["stopped"]
    assert steps == [*range(1, 9)] and losses[-1] < losses[0]
    (tmp_path / "recipe.toml").write_text(toml(RECIPE))
    program("train", "--config", tmp_path / "recipe.toml", "--out", tmp_path / "other")
    expected = sha256(tmp_path / "other/model/model.safetensors")
    assert sha256(Path(outcome["model"]) / "model.safetensors") == expected
    assert sha256(trained / "model/model.safetensors") == expected


def test_a_run_that_is_stopped_goes_on(trained: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        """What a callback raises."""

    def raising(step: int, _: object) -> None:
        if step == 5:
            raise Stop

    # False stops, and so does an exception. The next call goes on with the step after that.
    trainer = sterna.Trainer(RECIPE, out=tmp_path / "run")
    outcome = trainer.run(lambda step, _: step < 3)
    assert outcome["stopped"] and outcome["step"] == 3
    with pytest.raises(Stop):
        sterna.Trainer(RECIPE, out=tmp_path / "run").run(raising)
    first: list[int] = []
    outcome = sterna.Trainer(RECIPE, out=tmp_path / "run").run(lambda step, _: first.append(step))
    assert first[0] == 6 and not outcome["stopped"]
    expected = sha256(trained / "model/model.safetensors")
    assert sha256(Path(outcome["model"]) / "model.safetensors") == expected


def test_presets_and_values(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Once Mia sat in the barn.\n\n" * 400)
    values = {"train.steps": 2, "data.text": [str(tmp_path / "text.txt")]}
    trainer = sterna.Trainer(preset="tiny-1m", out=tmp_path / "run", set=values)
    assert trainer.recipe["train"]["steps"] == 2
    recipe = FIXTURES / "trained/bitnet.toml"
    assert sterna.Trainer(recipe, out=tmp_path / "other").recipe["model"]["family"] == "bitnet"


def test_conversion_is_that_of_the_command_line(
    trained: Path, program: Program, tmp_path: Path
) -> None:
    for packing in ("i2", "t5"):
        out = tmp_path / f"{packing}.sterna"
        report = sterna.convert(trained / "model", out, packing=packing)
        assert report["differ"] == report["scales_differ"] == report["values_differ"] == 0
        assert report["sha256"] == sha256(out) and report["bytes_out"] == os.path.getsize(out)
        other = tmp_path / f"{packing}-other.sterna"
        program("convert", trained / "model", "--out", other, "--packing", packing)
        assert sha256(other) == sha256(out)
    compared = sterna.verify(tmp_path / "i2.sterna", tmp_path / "t5.sterna")
    assert compared["equal"] and compared["differ"] == 0 and compared["weights"] > 0
    sterna.convert(trained / "model", tmp_path / "folder", to="hf")
    assert sterna.verify(tmp_path / "folder", tmp_path / "t5.sterna")["equal"]


def test_facts_and_checks_are_those_of_the_command_line(models: Path, program: Program) -> None:
    path = models / "model.sterna"
    assert sterna.inspect(path) == program.json("inspect", path)
    assert sterna.inspect(path)["hidden_size"] == 64
    found = sterna.doctor(path)
    assert found["broken"] == 0 and found["checks"]
    printed = program.json("doctor", path)
    assert [check["check"] for check in found["checks"]] == [
        check["check"] for check in printed["checks"]
    ]
