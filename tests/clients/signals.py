"""SIGTERM drains the server, a second one ends it, and after SIGKILL it is there again."""

import contextlib
import signal
import time

from server import PATIENCE, Client, Server, together, until

TEXT = "/v1/completions"
GOOD = {"model": "m", "prompt": "Once", "max_tokens": 1}
LONG = {"model": "m", "prompt": ["Once"] * 200, "n": 8, "max_tokens": 240, "ignore_eos": True}
# Seconds of work while requests are refused.
SOME = LONG | {"prompt": ["Once"] * 12, "n": 4, "max_tokens": 200, "seed": 3}


def is_draining(server):
    status, _ = server.get("/ready")
    return status == 503


def drain():
    """Answers in progress end as they would have, whole or streamed. New ones are refused."""
    with Server() as server:
        with Client(server) as client:
            expected = client.post(TEXT, SOME)[2]["choices"]

        def work(index):
            if index == 0:
                until(lambda: server.metrics()["sterna_requests_open"] == 3, "begun")
                server.signal()
                until(lambda: is_draining(server), "draining")
                status, headers, reply = server.post(TEXT, GOOD)
                assert status == 503 and reply["error"]["code"] == "draining", (status, reply)
                assert headers["Retry-After"], headers
                assert server.status("/health") == 200
                return None
            with Client(server) as client:
                if index == 1:
                    return client.post(TEXT, SOME)[2]["choices"]
                texts = [""] * len(expected)
                for event in client.stream(TEXT, SOME | {"stream": True}):
                    for choice in event["choices"]:
                        texts[choice["index"]] += choice["text"]
                return texts

        _, whole, streamed = together(3, work)
        assert whole == expected
        assert streamed == [choice["text"] for choice in expected]
        code = server.process.wait(PATIENCE)
        assert code == 0, f"exit code {code}"
    print("SIGTERM: answers in progress ended, new ones heard 503, exit code 0")


def second_signal():
    """Nobody waits for the answers after the second signal."""
    server = Server("--drain", "600")
    with contextlib.closing(server.open(TEXT, LONG | {"stream": True})) as link:
        assert link.recv(500)
        server.signal()
        until(lambda: is_draining(server), "draining")
        assert server.process.poll() is None
        # Signals that follow each other at once are one, as of a terminal and its shell.
        start = time.monotonic()
        until(lambda: server.signal() or server.process.poll() is not None, "ended")
        code = server.process.wait()
    seconds = time.monotonic() - start
    assert code == 1, f"exit code {code}"
    print(f"a second SIGTERM: exit code 1 after {seconds * 1e3:.0f} ms")


def cut_off():
    """What is not finished in time hears so, and the exit code says it."""
    server = Server("--drain", "1")
    with contextlib.closing(server.open(TEXT, LONG | {"stream": True})) as link:
        assert link.recv(500)
        server.signal()
        text = b""
        while part := link.recv(1 << 16):
            text += part
    assert b'"code":"draining"' in text, text[-500:]
    code = server.process.wait(PATIENCE)
    assert code == 1, f"exit code {code}"
    print("an answer that did not end in time hears it, exit code 1")


def killed():
    """The same port is free at once."""
    server = Server()
    with contextlib.closing(server.open(TEXT, LONG | {"stream": True})) as link:
        assert link.recv(500)
        start = time.monotonic()
        server.signal(signal.SIGKILL)
        server.process.wait(PATIENCE)
        with Server(port=server.port) as again:
            assert again.post(TEXT, GOOD)[0] == 200
        seconds = time.monotonic() - start
    print(f"SIGKILL: answers again on the same port after {seconds * 1e3:.0f} ms")


def main():
    drain()
    second_signal()
    cut_off()
    killed()


main()
