"""64 clients send 50 requests each, of all kinds, and every answer equals the one alone.

The memory for keys and values is too small for all of them, so the cache gives up pages that were
computed, and some are computed again. Answers alone come from a server that has just started and
keeps no cache of them.
"""

import json
import random
import time

from server import Client, Server, together

CLIENTS, EACH, KINDS = 64, 50, 320
WORDS = "Once upon a time Tom and Mia had 3+4=7 boats, Zoë's naïve 日本 cat 🐟 said".split()
WORDS += ["\n", "(\t"]


def requests(rng):
    """Requests of all kinds, none of which draws its seed."""
    for index in range(KINDS):
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 24)))
        body = {"model": "m", "max_tokens": rng.randint(1, 24), "return_token_ids": True}
        if rng.random() < 0.5:
            body |= {"temperature": 0}
        else:
            body |= {"temperature": rng.choice([0.5, 1, 1.5]), "seed": rng.randint(0, 2**53)}
            body |= rng.choice([{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"n": 3}])
        body |= rng.choice([{}, {"frequency_penalty": 1.5}, {"repetition_penalty": 1.2}])
        body |= rng.choice([{}, {"stop": ["\n", "a"]}, {"logit_bias": {"7": 5, "9": -100}}])
        is_chat = index % 3 == 0
        if is_chat:
            body["messages"] = [{"role": "user", "content": text}]
            body |= rng.choice([{}, {"logprobs": True, "top_logprobs": rng.randint(0, 20)}])
        else:
            length = rng.choice([rng.randint(1, 90), rng.randint(110, 127)])
            ids = rng.choices(range(3, 256), k=length)
            body["prompt"] = rng.choice([text, ids, [text, "Once"], [ids, [5], ids[:40]]])
            body |= rng.choice([{}, {"logprobs": 3}, {"logprobs": 0, "echo": True}])
        yield "/v1/chat/completions" if is_chat else "/v1/completions", body


def answer(client, path, body, is_streamed):
    """What must not depend on others: texts, token ids, log-probabilities and ends."""
    if is_streamed:
        return joined(client.stream(path, body | {"stream": True}))
    status, _, reply = client.post(path, body)
    assert status == 200, reply
    found = {}
    for choice in reply["choices"]:
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        found[choice["index"]] = [
            text, choice["token_ids"], entries(choice["logprobs"]), choice["finish_reason"]
        ]
    return reply["system_fingerprint"], found


def entries(logprobs):
    """Log-probabilities as one list per name. A stream has no part without a token."""
    return {name: list for name, list in (logprobs or {}).items() if list}


def joined(events):
    """The answer that the events of a stream make."""
    found = {}
    for event in events:
        for choice in event["choices"]:
            one = found.setdefault(choice["index"], ["", [], {}, None])
            delta = choice.get("delta", {})
            one[0] += choice["text"] if "text" in choice else delta.get("content") or ""
            one[1] += choice.get("token_ids") or []
            for name, part in entries(choice["logprobs"]).items():
                one[2].setdefault(name, []).extend(part)
            one[3] = choice["finish_reason"] or one[3]
    return events[0]["system_fingerprint"], found


def main():
    mixed = list(requests(random.Random(19)))
    with Server("--threads", "1") as server, Client(server) as client:
        cold = {"cache_prompt": False}
        alone = [answer(client, path, body | cold, False) for path, body in mixed]
    assert len({json.dumps(found) for _, found in alone}) > KINDS // 2
    start = time.monotonic()
    with Server("--kv-memory", "4MiB", "--queue", "4096", "--threads", "2") as server:

        def work(index):
            rng = random.Random(index)
            with Client(server) as client:
                for kind in rng.sample(range(KINDS), EACH):
                    path, body = mixed[kind]
                    found = answer(client, path, body, rng.random() < 0.5)
                    assert found == alone[kind], f"{body}:\n{found}\nalone:\n{alone[kind]}"

        together(CLIENTS, work)
        server.until_idle()
        now = server.metrics()
    evicted, cached = now["sterna_evictions_total"], now["sterna_cached_tokens_total"]
    assert evicted and cached and now["sterna_failed_total"] == 0, now
    seconds = time.monotonic() - start
    print(f"{CLIENTS * EACH} answers of {CLIENTS} clients equal those alone, in {seconds:.0f} s;"
          f" {evicted:.0f} pages were given up, {cached:.0f} tokens came from the cache")


main()
