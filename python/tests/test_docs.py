"""Every example of the documentation: of the module, of its stub, and of docs/python.md."""

import ast
import doctest
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sterna

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "python/sterna/_sterna.pyi"


def of_stub() -> Iterator[tuple[str, str]]:
    """Names and their descriptions in the stub."""

    def walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{name}.{child.name}" if name else child.name
                yield inner, ast.get_docstring(child) or ""
                yield from walk(child, inner)

    yield from walk(ast.parse(STUB.read_text()), "")


def found(name: str) -> Any:
    """An object of the package by its name in the stub."""
    value: Any = sterna._sterna
    for part in name.split("."):
        value = inspect.getattr_static(value, part)
    return value


DOCSTRINGS = [name for name, text in of_stub() if re.search(">>>(?!.*SKIP)", text)]
PAGES = ["docs/python.md", "examples/python/README.md", "README.md"]


def run(text: str, name: str, models: Path, folder: Path) -> int:
    """Runs the examples of a text beside the models that they name; their number."""
    shutil.copytree(models / "model", folder / "model")
    for file in ("model.sterna", "chat.sterna"):
        shutil.copy(models / file, folder)
    test = doctest.DocTestParser().get_doctest(text, {"sterna": sterna}, name, name, 0)
    before = os.getcwd()
    os.chdir(folder)
    try:
        with sterna.Model("model.sterna") as model:
            test.globs["model"] = model
            lines: list[str] = []
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            runner = doctest.DocTestRunner(optionflags=flags)
            failed, tried = runner.run(test, out=lines.append)
    finally:
        os.chdir(before)
    assert not failed, "".join(lines)
    return tried


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_examples_of_docstrings(name: str, models: Path, tmp_path: Path) -> None:
    text = dict(of_stub())[name]
    assert run(text, name, models, tmp_path) > 0


def test_help_is_that_of_the_stub() -> None:
    """`help()` shows what editors show."""
    for name, text in of_stub():
        if text and not name.rpartition(".")[2].startswith("__"):
            assert inspect.cleandoc(found(name).__doc__ or "") == text, name


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages(page: str, models: Path, tmp_path: Path) -> None:
    """All blocks of Python of a page are one session."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for block in blocks:
        assert block.startswith(">>>"), f"{page}: a block without >>> is not run:\n{block}"
    if page == "docs/python.md":
        assert len(blocks) > 10
    if blocks:
        run("\n".join(blocks), page, models, tmp_path)
