"""Requests of all kinds for some time: memory and file descriptors of the server do not grow.

The third argument is the number of seconds.
"""

import contextlib
import random
import sys
import time

from server import Client, Server, together, until

CLIENTS = 12
# Memory that may come after the first third, when the cache is full: bytes of the allocator.
GROWTH = 16 << 20
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def one(server, client, rng):
    """A request: answered, streamed, refused or left."""
    body = {"model": "m", "max_tokens": rng.randint(1, 60), "seed": rng.randint(0, 99)}
    ids = rng.choices(range(3, 250), k=rng.randint(1, 180))
    text = body | {"prompt": [ids] * rng.randint(1, 4)}
    chat = body | {"messages": [{"role": "user", "content": "Hi " * rng.randint(1, 40)}]}
    kind = rng.random()
    if kind < 0.3:
        status, _, reply = client.post(TEXT, text | {"logprobs": 5, "echo": True})
        assert status == 200, reply
    elif kind < 0.5:
        status, _, reply = client.post(CHAT, chat | {"n": 2, "logprobs": True})
        assert status == 200, reply
    elif kind < 0.7:
        assert client.stream(CHAT, chat | {"stream": True})
    elif kind < 0.8:
        status, _, reply = client.post("/v1/embeddings", {"model": "m", "input": text["prompt"]})
        assert status == 200, reply
    elif kind < 0.9:
        status, _, reply = client.post(TEXT, text | {"top_p": 7})
        assert status == 400, reply
    else:
        with contextlib.closing(server.open(TEXT, text | {"n": 8, "stream": True})) as link:
            link.recv(rng.choice([1, 1000]))


def main():
    seconds = float(sys.argv[3])
    with Server("--kv-memory", "16MiB", "--queue", "4096") as server:

        def load(seconds, seed):
            """Sends requests for this time; how many."""
            end = time.monotonic() + seconds

            def work(index):
                rng, count = random.Random(seed + index), 0
                with Client(server) as client:
                    while time.monotonic() < end:
                        one(server, client, rng)
                        count += 1
                return count

            count = sum(together(CLIENTS, work))
            server.until_idle()
            return count, server.memory()

        descriptors = server.descriptors()
        parts = [load(seconds / 3, seed) for seed in (0, 1000, 2000)]
        count = sum(part[0] for part in parts)
        (_, memory), *_, (_, memory_after) = parts
        assert memory_after - memory <= GROWTH, f"memory grew: {parts}"
        # The server learns of a connection that a client has just closed a moment later.
        until(lambda: server.descriptors() <= descriptors, "closed", lambda: str(parts))
        now = server.metrics()
        assert now["sterna_failed_total"] == 0 and now["sterna_evictions_total"] > 0, now
    growth = (memory_after - memory) >> 10
    print(f"soak: {count} requests in {seconds:.0f} s; memory {growth:+d} KiB,"
          f" at most {descriptors} file descriptors")


main()
