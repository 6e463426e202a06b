"""Threads, signals, forks and the end of the interpreter."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sterna
from conftest import until

# Longest wait for anything that must happen, in seconds. Nothing waits that long if all is well.
PATIENCE = 60


def script(source: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", source, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)


@pytest.mark.parametrize("work", ["logits", "generate", "score", "embed", "session", "stream"])
def test_other_threads_run_during_a_pass(long_model: sterna.Model, work: str) -> None:
    # What was computed before is not computed again.
    ids = [5 + index * sum(map(ord, work)) % 97 for index in range(3000)]
    session = long_model.session()
    calls: dict[str, Any] = {
        "logits": lambda: long_model.logits(ids),
        "generate": lambda: long_model.generate(ids, max_tokens=200, cache_prompt=False),
        "score": lambda: long_model.score(ids, ids[:500]),
        "embed": lambda: long_model.embed([ids]),
        "session": lambda: session.feed(ids),
        "stream": lambda: next(long_model.stream(ids, cache_prompt=False)),
    }
    count = 0
    is_over = False

    def counting() -> None:
        nonlocal count
        while not is_over:
            count += 1
            time.sleep(0)  # gives the lock to a thread that waits for it

    thread = threading.Thread(target=counting)
    # Threads that do not give the lock away keep it.
    interval = sys.getswitchinterval()
    thread.start()
    try:
        until(lambda: count > 0, "counting")
        sys.setswitchinterval(1000)
        before = count
        calls[work]()
        after = count
    finally:
        sys.setswitchinterval(interval)
        is_over = True
        thread.join()
    assert after - before > 1000, f"{after - before} steps of another thread during {work}"


def test_requests_of_many_threads_are_those_alone(model: sterna.Model) -> None:
    def request(seed: int) -> Any:
        rng = random.Random(seed)
        prompt = " ".join(rng.choices(["Once", "Mia", "Tom", "sat", "in", "the", "barn."], k=6))
        kind = rng.choice(["generate", "stream", "logits", "score", "session", "embed"])
        if kind == "generate":
            return model.generate(prompt, max_tokens=12, temperature=1, seed=seed).text
        if kind == "stream":
            return "".join(model.stream(prompt, max_tokens=12, temperature=1, seed=seed))
        if kind == "score":
            return tuple(model.score("Once", prompt))
        if kind == "embed":
            return model.embed(prompt).tobytes()
        ids = model.tokenizer.encode(prompt)
        if kind == "logits":
            return model.logits(ids).tobytes()
        with model.session() as session:
            return session.feed_logits(ids).tobytes()

    alone = [request(seed) for seed in range(60)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(request, [*range(60)] * 4)) == alone * 4


def test_a_session_is_of_one_thread_at_a_time(long_model: sterna.Model) -> None:
    session = long_model.session()
    refused = threading.Event()

    def disturb() -> None:
        while not is_over:
            try:
                session.next_logits()
            except sterna.ClosedError:
                refused.set()
            except sterna.Error:  # it has no tokens yet
                pass

    is_over = False
    thread = threading.Thread(target=disturb)
    thread.start()
    done = 0
    try:
        while not refused.is_set() and done < 40:
            try:
                session.truncate(0)
                session.feed([5] * 3000)
                done += 1
            except sterna.ClosedError:
                pass
    finally:
        is_over = True
        thread.join()
    assert refused.is_set()


HOURS = """
import os, signal, sys, threading, traceback, sterna
# A shell starts what runs in its background without this.
signal.signal(signal.SIGINT, signal.default_int_handler)
model = sterna.Model(sys.argv[1])
ids = [5 + index % 90 for index in range(2000)]
works = {
    "generate": lambda: model.generate_batch([ids] * 10000, ignore_eos=True, cache_prompt=False),
    "stream": lambda: [piece for _ in range(10000) for piece in model.stream(ids, ignore_eos=True)],
    "score": lambda: model.score_batch([(ids[i % 50 :], ids) for i in range(100000)]),
    "embed": lambda: model.embed([ids[i % 50 :] for i in range(100000)]),
}
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    works[sys.argv[2]]()
except KeyboardInterrupt:
    # The model still works.
    print("interrupted", len(model.generate("one", max_tokens=3, ignore_eos=True).tokens))
"""


@pytest.mark.parametrize("work", ["generate", "stream", "score", "embed"])
def test_ctrl_c_ends_hours_of_work(models: Path, work: str) -> None:
    done = script(HOURS, models / "chat.sterna", work)
    assert done.stdout == "interrupted 3\n", done.stderr


def test_a_signal_handler_that_returns_changes_nothing(long_model: sterna.Model) -> None:
    expected = long_model.generate("one", max_tokens=2000, ignore_eos=True)
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        found = long_model.generate("one", max_tokens=2000, ignore_eos=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found == expected and seen


def test_a_cancelled_task_frees_its_pages(models: Path) -> None:
    # There is room for one text of the whole context, and another one waits until it is free.
    with sterna.Model(models / "chat.sterna", kv_memory="2MiB") as model:

        async def cancelled() -> None:
            task = asyncio.create_task(model.agenerate("one", ignore_eos=True))
            stream = model.astream("two", ignore_eos=True)
            await anext(stream)
            assert model.cached_pages > 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stream.close()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.agenerate("three", ignore_eos=True), 0.001)
            done = await asyncio.wait_for(model.agenerate("four", ignore_eos=True), PATIENCE)
            assert done.usage.completion_tokens > 4000

        for _ in range(3):
            asyncio.run(cancelled())


def test_the_loop_of_asyncio_is_not_blocked(long_model: sterna.Model) -> None:
    async def both() -> int:
        ticks = 0
        task = asyncio.create_task(long_model.agenerate("one", max_tokens=2000, ignore_eos=True))
        while not task.done():
            await asyncio.sleep(0)
            ticks += 1
        assert len((await task).tokens) == 2000
        return ticks

    assert asyncio.run(both()) > 100


FORK = """
import os, sys, sterna
model = sterna.Model(sys.argv[1])
session = model.session()
session.feed([5, 6])
stream = model.stream("one", ignore_eos=True)
next(stream)
text = model.generate("one", max_tokens=8).text
child = os.fork()
if child == 0:
    calls = [
        lambda: model.generate("one", max_tokens=8),
        lambda: model.logits([5]),
        lambda: model.score("one", " two"),
        lambda: model.embed("one"),
        lambda: session.feed([5]),
        lambda: next(stream),
        lambda: model.session(),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except sterna.ClosedError:
            pass
        else:
            os._exit(10 + number)
    # A model of its own works.
    again = sterna.Model(sys.argv[1]).generate("one", max_tokens=8).text
    os._exit(0 if again == text else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
assert model.generate("one", max_tokens=8).text == text
next(stream)
print("fine")
"""


def test_after_a_fork_the_child_is_refused(models: Path) -> None:
    done = script(FORK, models / "chat.sterna")
    assert done.stdout == "fine\n", done.stderr


LEFT = """
import sys, threading, sterna
model = sterna.Model(sys.argv[1])
stream = model.stream("one", ignore_eos=True)
next(stream)
def work():
    while True:
        model.generate("two", ignore_eos=True)
threading.Thread(target=work, daemon=True).start()
next(stream)
print("left")
"""


def test_the_interpreter_ends_during_work(models: Path) -> None:
    for _ in range(3):
        done = script(LEFT, models / "chat.sterna")
        assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def test_importing_is_light() -> None:
    done = script("import sys, sterna; print('lm_eval' in sys.modules, 'asyncio' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


def test_errors_have_a_base() -> None:
    for name in ("FileError", "ModelError", "UsageError", "ContextError", "ClosedError"):
        assert issubclass(getattr(sterna, name), sterna.Error), name
    assert issubclass(sterna.UsageError, ValueError)
    assert issubclass(sterna.ConstraintError, sterna.UsageError)

    class Mine(sterna.FileError):
        """An error of a program that uses the package."""

    with pytest.raises(sterna.Error):
        raise Mine("mine")
    assert os.path.basename(sterna.__file__) == "__init__.py"
