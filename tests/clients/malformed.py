"""600 requests that are wrong: each is refused fast and in JSON, and the next one is answered.

The memory of the server must not grow by more than 16 MiB.
"""

import contextlib
import json
import random
import re
import socket
import time

from server import HOST, PATIENCE, Client, Server, request, together

LEAST, GROWTH = 600, 16 << 20
# Seconds until a refusal. A time that is longer was perhaps the machine's, so it is tried again.
FAST, TRIES = 0.1, 5
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
GOOD = {"model": "m", "prompt": "Once", "max_tokens": 1, "temperature": 0}
MESSAGES = [{"role": "user", "content": "Hi"}]
ROUTES = {CHAT: {"model": "m", "messages": MESSAGES}, TEXT: GOOD}
ROUTES |= {"/v1/embeddings": {"model": "m", "input": "a"}, "/tokenize": {"prompt": "a"}}

# Values that no number may have, as they are written in JSON.
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9223372036854775808", "1.5.2"]
NUMBERS += ["-9223372036854775809", "1e", "0x10", "--1", "[]", "{}", '"1"', "true", "1" + "0" * 400]
# Values that no text may have.
TEXTS = ["{}", "1", "true", '"\\ud800"', '"\\x"', '"\x01"', '"a', "'a'", "[null]", '[["a"]]']
TEXTS += ["[-1]", "[9999999]", "[1.5]", '[1,"a"]', "[[]]", "[]", "[1e400]"]
TEXTS += ["[9223372036854775808]"]
# Fields that are numbers, and one value that is out of the range of each.
FIELDS = {"max_tokens": -1, "temperature": -0.5, "top_p": 1.01, "top_k": -2, "min_p": 2, "n": 9}
FIELDS |= {"seed": 2**63, "frequency_penalty": 2.5, "presence_penalty": -3}
FIELDS |= {"repetition_penalty": -1}
# Bodies of chat that are JSON and not a conversation, or ask for what there is not.
CONVERSATIONS = [
    [], {}, "Hi", [1], [[]], [{}], [None], [{"role": "user"}], [{"role": "king", "content": "a"}],
    [{"role": 1, "content": "a"}], [{"role": None, "content": "a"}],
    [{"role": "user", "content": 1}], [{"role": "tool", "content": {}}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}],
    [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": {"a": 1}}],
]
FIELDS_OF_ALL = [
    {"stop": [""]}, {"stop": ["a"] * 17}, {"stop": 1}, {"stop": ["a" * 257]}, {"stream": "yes"},
    {"logit_bias": {"a": 1}}, {"logit_bias": {"1": 101}}, {"logit_bias": [1]}, {"logprobs": 21},
    {"logit_bias": {"99999999": 1}}, {"stop_token_ids": [-1]}, {"stop_token_ids": 2}, {"model": 1},
    {"best_of": 2}, {"suffix": "a"}, {"model": ""}, {"model": "x"},
    {"stream_options": []}, {"stream_options": {"include_usage": True}},
    {"response_format": {"type": "sound"}},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tool_choice": "required"}, {"logit_bias": {"1": "a"}}, {"functions": [{"name": "f"}]},
    {"stop": [1]}, {"stop": {}}, {"stop_token_ids": [1.5]}, {"ignore_eos": 1},
    {"cache_prompt": "a"}, {"max_completion_tokens": -1}, {"suffix": 1}, {"stream": []},
    {"return_token_ids": 2},
]


def with_text(body, name, value):
    """JSON in which a field is this text, which need not be JSON."""
    rest = {other: kept for other, kept in body.items() if other != name}
    return f'{{"{name}": {value}, {json.dumps(rest)[1:]}'.encode()


def bodies():
    """Paths and bodies that are refused, the whole list again and again with other details."""
    for path, body in ROUTES.items():
        whole = json.dumps(body).encode()
        yield from ((path, bad) for bad in (b"", b"[]", b"null", b'"a"', b"1", whole + b"}", b"\0"))
        yield from ((path, whole[:length]) for length in range(1, len(whole) - 1, 3))
        yield path, b'{"a": 1, "a": 1, ' + whole[1:]
        yield path, whole[:-1] + b', "a": "\xff\xfe"}'
        yield path, whole[:-1] + b', "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        yield path, whole[:-1] + b', "a": ' + b'{"a":' * 100_000
        yield path, whole[:-1] + b', "a": [' + b"0," * 300_000 + b"0]}"
        yield path, whole.replace(b'"', b"'")
        yield path, whole.decode().encode("utf-16")
    for path in CHAT, TEXT:
        for name, outside in FIELDS.items():
            yield from ((path, with_text(ROUTES[path], name, value)) for value in NUMBERS)
            yield path, with_text(ROUTES[path], name, outside)
        yield from ((path, json.dumps(ROUTES[path] | more).encode()) for more in FIELDS_OF_ALL)
    for path, name in (TEXT, "prompt"), ("/v1/embeddings", "input"), ("/tokenize", "prompt"):
        yield from ((path, with_text(ROUTES[path], name, value)) for value in TEXTS)
    yield TEXT, json.dumps(GOOD | {"prompt": "a " * 4000}).encode()
    yield TEXT, json.dumps(GOOD | {"prompt": [5] * 4000}).encode()
    for messages in CONVERSATIONS:
        yield CHAT, json.dumps({"model": "m", "messages": messages}).encode()


def raw(rng):
    """Bytes that are not the HTTP/1.1 of a request that is answered."""
    body = json.dumps(GOOD).encode()
    good = request(TEXT, body)
    chunked = [b"POST /v1/completions HTTP/1.1", b"Host: 127.0.0.1"]
    chunked = b"\r\n".join(chunked + [b"Content-Type: application/json", b""])
    yield from (
        b"GET /\r\n", b"GET / HTTP/3.7\r\n\r\n", b"\0" * 64 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", b"POST\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA\0: b\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"PUT /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
        b"GET /v1/models/../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        good.replace(b"application/json", b"text/plain"),
        good.replace(b"Content-Length: ", b"Content-Length: -"),
        good.replace(b"Content-Length: ", b"Content-Length: 99999999999999999999"),
        good.replace(b"Content-Length: ", b"Content-Length: 5\r\nContent-Length: "),
        good.replace(b"Content-Length: ", b"Content-Length: 0x"),
        # Lengths that lie: less than there is, and chunks that are not what they say.
        request(TEXT, body[:-9]) + body[-9:],
        chunked + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + body,
        chunked + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n",
        chunked + b"Transfer-Encoding: chunked\r\n\r\n2\r\n" + body + b"\r\n0\r\n\r\n",
        chunked + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + body + b"\r\n0\r\n\r\n",
        chunked + b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        chunked + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        rng.randbytes(300).replace(b"\n", b"") + b"\r\n\r\n",
    )


def refused(server, data):
    """Sends bytes. Returns the status and the body of the first reply, and the seconds until it."""
    with contextlib.closing(socket.create_connection((HOST, server.port), PATIENCE)) as link:
        start = time.monotonic()
        reply = b""
        # A server may refuse what it has not read to its end, and close.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while (found := whole(reply)) is None and (part := link.recv(1 << 16)):
                reply += part
        seconds = time.monotonic() - start
    assert found, f"{data[:300]!r}: no whole reply, but {reply[:300]!r}"
    return *found, seconds


def whole(reply):
    """The status and the body of a reply, once it is whole."""
    head, _, body = reply.partition(b"\r\n\r\n")
    found = re.match(rb"(?is)HTTP/1\.[01] (\d+) .*\r\ncontent-length: (\d+)", head)
    if found is None or len(body) < int(found[2]):
        return None
    return int(found[1]), body[: int(found[2])]


def check(server, data, limit=FAST):
    """Seconds until a refusal, the shortest of some tries if it is slow."""
    best = float("inf")
    for _ in range(TRIES):
        status, body, seconds = refused(server, data)
        assert 400 <= status < 500, f"{data[:300]!r}: {status} {body[:300]!r}"
        try:
            error = json.loads(body)["error"]
        except ValueError as bad:
            raise AssertionError(f"{data[:300]!r}: {status} and not JSON: {body!r}") from bad
        assert error["message"] and set(error) == {"message", "type", "param", "code"}, error
        best = min(best, seconds)
        if best <= limit:
            return best
    raise AssertionError(f"{data[:300]!r}: refused after {best} s")


def drip(server):
    """A head that comes byte by byte, and a body that stops: both end, the second with a reason."""

    def work(index):
        head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        data = request(TEXT, b"a" * 100)[:-90] if index else head
        with contextlib.closing(socket.create_connection((HOST, server.port), 1)) as link:
            start = time.monotonic()
            link.sendall(data)
            reply = None
            while reply is None:
                assert time.monotonic() - start < PATIENCE, f"{data!r}: nothing ended it"
                try:
                    reply = link.recv(1000)
                except TimeoutError:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        link.sendall(b"" if index else b"a")
                except ConnectionResetError:
                    reply = b""
            assert not index or whole(reply)[0] == 408, reply
            return time.monotonic() - start

    return together(2, work)


def main():
    rng = random.Random(19)
    cases = [request(path, body) for path, body in bodies()] + list(raw(rng))
    assert len(cases) >= LEAST, len(cases)
    with Server() as server, Client(server) as client:
        expected = client.post(TEXT, GOOD)[2]["choices"]

        def next_is_fine():
            status, _, reply = client.post(TEXT, GOOD)
            assert status == 200 and reply["choices"] == expected, reply

        memory, slowest = server.memory(), 0
        for data in cases:
            slowest = max(slowest, check(server, data))
            next_is_fine()
        for big in b"a" * 50_000_000, b"[" * 50_000_000:
            check(server, request(TEXT, big), limit=1)
            next_is_fine()
        dripped = drip(server)
        next_is_fine()
        growth = server.memory() - memory
        assert growth <= GROWTH, f"memory grew by {growth} bytes"
        server.until_idle()
    print(f"{len(cases) + 2} malformed requests were refused, the slowest after"
          f" {slowest * 1e3:.0f} ms; memory {growth >> 10:+d} KiB;"
          f" slow ones ended after {max(dripped):.0f} s")


main()
