"""200 clients leave: in a stream, before an answer, in the queue and while prompts are computed.

What they asked for is let go of, and the answers of others are what they would be alone.
"""

import contextlib
import json
import random
import time

from server import Client, Server, until

EACH = 50
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
GOOD = {"model": "m", "prompt": "Once", "max_tokens": 40, "seed": 7, "logprobs": 2}
# More work than the rest of the test has time for.
LONG = {"model": "m", "prompt": ["Once"] * 200, "n": 8, "max_tokens": 240, "ignore_eos": True}
SCORES = {"model": "m", "prompt": [[5] * 250] * 200, "echo": True, "logprobs": 5, "max_tokens": 0}


def in_stream(server, rng):
    """Reads some events, then leaves."""
    with contextlib.closing(server.open(TEXT, LONG | {"stream": True})) as link:
        for _ in range(rng.randint(1, 4)):
            assert link.recv(500)


def before_answer(server, rng):
    """Leaves when the answer is being computed."""
    before = server.metrics()["sterna_generation_tokens_total"]
    with contextlib.closing(server.open(TEXT, LONG | {"temperature": rng.random()})):
        until(lambda: server.metrics()["sterna_generation_tokens_total"] > before + 20, "begun")


def in_prompt(server, rng):
    """Leaves when some of its prompts were computed."""
    before = server.metrics()["sterna_prompt_tokens_total"]
    body = SCORES | {"prompt": [[rng.randint(5, 250)] * 250] * 200, "cache_prompt": False}
    with contextlib.closing(server.open(TEXT, body)):
        until(lambda: server.metrics()["sterna_prompt_tokens_total"] > before, "begun")


def in_queue(server, rng):
    """Leaves when it waits after others, who leave later."""
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(contextlib.closing(server.open(TEXT, LONG)))
        # Of each list eight prompts are in the engine, and the eight answers to one are computed.
        until(lambda: server.metrics()["sterna_requests_waiting"] == 120, "full")
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": 3}
        left = server.metrics()["sterna_cancelled_total"]
        link = server.open(CHAT, chat | {"stream": rng.random() < 0.5})
        until(lambda: server.metrics()["sterna_requests_waiting"] == 123, "waiting")
        link.close()
        until(lambda: server.metrics()["sterna_cancelled_total"] > left, "let go of in the queue")


def main():
    rng = random.Random(19)
    # Four answers at a time, so that a queue is easy to make.
    with Server("--parallel", "4", "--queue", "256") as server, Client(server) as client:
        expected = client.post(TEXT, GOOD)[2]["choices"]
        descriptors = server.descriptors()
        for leave in in_stream, before_answer, in_prompt, in_queue:
            longest = 0
            for index in range(EACH):
                leave(server, rng)
                start = time.monotonic()
                server.until_idle()
                longest = max(longest, time.monotonic() - start)
                if index % 5 == 0:
                    status, _, reply = client.post(TEXT, GOOD)
                    assert status == 200 and reply["choices"] == expected, json.dumps(reply)
            print(f"{EACH} clients left {leave.__name__}: idle in {longest * 1e3:.0f} ms at most")
        now = server.metrics()
        assert now["sterna_cancelled_total"] >= 4 * EACH and now["sterna_failed_total"] == 0, now
        until(lambda: server.descriptors() <= descriptors, "closed", server.descriptors)


main()
