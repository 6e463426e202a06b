"""Small models for the tests, packed from the fixtures of the repository.

The package must be installed, with its program: these tests never use the sources beside them.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sterna

# The model of stories learned no conversations. With this it continues the messages.
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
FIXTURES = Path(__file__).resolve().parents[2] / "tests/fixtures"


class Program:
    """The program `sterna` of the same installation."""

    path = Path(sys.executable).with_name("sterna")

    def __call__(self, *args: object, stdin: str = "") -> str:
        """What it prints."""
        command = [str(self.path), *map(str, args), "--quiet"]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *args: object) -> dict[str, Any]:
        """The object that it prints."""
        found: dict[str, Any] = json.loads(self(*args, "--json"))
        return found


def until(condition: Callable[[], bool], name: str) -> None:
    """Waits for what must happen."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"not {name} after 60 s"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def program() -> Program:
    return Program()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models.

    - `model`, `model.sterna`: it knows its stories, and its context is 96;
    - `chat.sterna`: random weights, and a context of 4096;
    - `embed.sterna`: an embedding model with random weights.
    """
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(FIXTURES / "trained/bitnet", folder / "model")
    (folder / "model/chat_template.jinja").write_text(TEMPLATE)
    sterna.convert(folder / "model", folder / "model.sterna")
    checkpoints = FIXTURES / "checkpoints"
    sterna.convert(checkpoints / "bitnet-packed-bf16-scales", folder / "chat.sterna")
    sterna.convert(checkpoints / "qwen3-embedding", folder / "embed.sterna")
    return folder


@pytest.fixture(scope="session")
def model(models: Path) -> Iterator[sterna.Model]:
    with sterna.Model(models / "model.sterna") as model:
        yield model


@pytest.fixture(scope="session")
def long_model(models: Path) -> Iterator[sterna.Model]:
    with sterna.Model(models / "chat.sterna") as model:
        yield model
