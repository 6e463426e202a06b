"""Memory stays as it is over thousands of sessions, streams and arrays."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

import sterna

MIB = 1 << 20


def resident() -> int:
    """Resident bytes."""
    gc.collect()
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def check(work: Callable[[], None], times: int) -> None:
    """Memory may grow while the allocator warms up, and not after that."""
    for _ in range(times // 10):
        work()
    before = resident()
    for _ in range(times):
        work()
    grown = resident() - before
    assert grown < 8 * MIB, f"{grown / MIB:.1f} MiB more after {times} times"
    print(f"{grown / MIB:.2f} MiB more after {times} times")


def test_10000_sessions(models: Path) -> None:
    with sterna.Model(models / "model.sterna") as model:

        def work() -> None:
            session = model.session()
            session.feed([3, 4, 5, 6])
            branch = session.fork()
            branch.feed([7])
            session.next_logits()

        check(work, 10_000)


def test_streams_that_are_dropped(models: Path) -> None:
    # There is room for one text of the whole context. Streams that kept a page would fill it.
    with sterna.Model(models / "chat.sterna", kv_memory="2MiB") as model:

        def work() -> None:
            next(model.stream("one", ignore_eos=True))

        check(work, 2000)
        assert model.generate("one", ignore_eos=True).usage.completion_tokens > 4000


@pytest.mark.parametrize("work", ["logits", "generate", "score", "embed", "batch", "error"])
def test_calls(model: sterna.Model, work: str) -> None:
    def error() -> None:
        with pytest.raises(sterna.ContextError):
            model.generate([5] * 200)

    calls: dict[str, Callable[[], object]] = {
        "logits": lambda: model.logits([5] * 90),
        "generate": lambda: model.generate("Once", max_tokens=4, logprobs=5),
        "score": lambda: model.score("Once", " Mia sat"),
        "embed": lambda: model.embed(["Once", "Mia"]),
        "batch": lambda: model.generate_batch(["Once", "Mia", "Tom"], max_tokens=2),
        "error": error,
    }

    def call() -> None:
        calls[work]()

    check(call, 1000)


def test_models_that_are_opened_again(models: Path) -> None:
    def work() -> None:
        sterna.Model(models / "model.sterna").generate("Once", max_tokens=1)

    check(work, 100)
