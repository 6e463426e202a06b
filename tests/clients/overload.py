"""More requests than the server takes: the others hear 429 at once, and all that were taken end.

With the retries that OpenAI's client makes by itself, every request ends in an answer or in
`RateLimitError`. That part needs the package `openai`.
"""

import contextlib
import threading
import time

import openai
from server import Client, Server, together, until

TEXT = "/v1/completions"
PARALLEL, QUEUE = 2, 6
# Seconds until a refusal, in the best of some tries: others use this machine, too.
FAST, TRIES = 0.05, 20
REQUESTS, TIMES = 200, 4
BODY = {"model": "m", "prompt": "Once", "max_tokens": 60, "temperature": 0}
LONG = BODY | {"prompt": ["Once"] * 100, "n": 2, "max_tokens": 200, "ignore_eos": True}


def refusals(server):
    """A full queue refuses at once, says when to come again, and never grows."""
    with contextlib.ExitStack() as stack, Client(server) as client:
        for _ in range(2):
            stack.enter_context(contextlib.closing(server.open(TEXT, LONG)))
        until(lambda: server.metrics()["sterna_requests_waiting"] >= QUEUE - 1, "full")
        times = []
        while len(times) < TRIES and (not times or min(times) > FAST):
            start = time.monotonic()
            status, headers, reply = client.post(TEXT, BODY | {"n": QUEUE + 1})
            times.append(time.monotonic() - start)
            assert status == 429, (status, reply)
            assert reply["error"]["type"] == "rate_limit_error", reply
            assert 1 <= int(headers["Retry-After"]) <= 60, headers["Retry-After"]
            waiting = server.metrics()["sterna_requests_waiting"]
            assert waiting <= QUEUE, f"{waiting} answers wait"
    assert min(times) <= FAST, f"refused after {min(times)} s"
    server.until_idle()
    print(f"429 after {min(times) * 1e3:.1f} ms")


def retries(server):
    """Threads share 200 requests and send them at four times what the server takes."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    expected = client.completions.create(**BODY).choices[0].text
    lock, left, refused = threading.Lock(), list(range(REQUESTS)), []

    def work(_):
        while True:
            with lock:
                if not left:
                    return
                left.pop()
            try:
                assert client.completions.create(**BODY).choices[0].text == expected
            except openai.RateLimitError as error:
                assert error.code == "queue_full", error
                refused.append(error)

    together(TIMES * (PARALLEL + QUEUE), work)
    replies = server.get("/metrics")[1]
    assert 'route="/v1/completions",code="429"' in replies, "nothing was ever refused"
    assert len(refused) < REQUESTS // 2, f"{len(refused)} of {REQUESTS} gave up"
    server.until_idle()
    answered = REQUESTS - len(refused)
    print(f"{REQUESTS} requests of openai: {answered} answers, {len(refused)} gave up")


def main():
    with Server("--parallel", str(PARALLEL), "--queue", str(QUEUE)) as server:
        refusals(server)
        retries(server)


main()
