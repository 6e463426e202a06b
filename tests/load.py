#!/usr/bin/env python3
"""Measures a server with OpenAI's API from outside: tokens per second, times, memory.

Prompts are token ids, drawn from a fixed seed, and answers never end early. One line of JSON per
measurement.

    tests/load.py users http://127.0.0.1:8080 --users 1,4,8,16
    tests/load.py long http://127.0.0.1:8080
    tests/load.py shared http://127.0.0.1:8080
    tests/load.py idle http://127.0.0.1:8080 --pid PID
    tests/load.py overload http://127.0.0.1:8080 --users 128
    tests/load.py tokenizer FOLDER     # for the folder that `sterna synthesize --as hf` wrote
"""

import argparse
import collections
import json
import os
import pathlib
import random
import socket
import statistics
import threading
import time
import urllib.parse


class Answer:
    """What a stream brought, with the time of each part."""

    def __init__(self):
        self.status = 0
        self.start = 0.0
        self.times = []
        self.text = ""
        self.usage = {}

    @property
    def tokens(self):
        return self.usage.get("completion_tokens", 0)

    @property
    def first(self):
        return self.times[0] - self.start

    @property
    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]


class Server:
    def __init__(self, url, key=None):
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname, parts.port or 80)
        self.head = f"Host: {parts.netloc}\r\n"
        if key:
            self.head += f"Authorization: Bearer {key}\r\n"
        self.model = json.loads(self.get("/v1/models"))["data"][0]["id"]

    def connect(self):
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def get(self, path):
        with self.connect() as connection:
            request = f"GET {path} HTTP/1.1\r\n{self.head}Connection: close\r\n\r\n"
            connection.sendall(request.encode())
            reply = connection.makefile("rb").read().decode()
        head, body = reply.split("\r\n\r\n", 1)
        if " 200 " not in head.splitlines()[0]:
            raise SystemExit(f"GET {path}: {head.splitlines()[0]}\n{body}")
        return body

    def metric(self, name):
        """The sum over all labels."""
        lines = self.get("/metrics").splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if named(line, name)]
        return sum(values)

    def stream(self, prompt, tokens, must=True, **fields):
        """Answers a prompt of token ids; `must` ends the program if it is refused."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
                "cache_prompt": False}
        text = json.dumps(body | fields)
        request = (f"POST /v1/completions HTTP/1.1\r\n{self.head}Connection: close\r\n"
                   f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}")
        answer = Answer()
        with self.connect() as connection:
            answer.start = time.perf_counter()
            connection.sendall(request.encode())
            self.read(connection.makefile("rb"), answer)
        if must and answer.tokens < tokens:
            raise SystemExit(f"status {answer.status}, {answer.tokens} tokens of {tokens}: "
                             f"{answer.text[:300]!r}")
        return answer

    def read(self, reply, answer):
        answer.status = int(reply.readline().split()[1])
        if answer.status != 200:
            answer.times.append(time.perf_counter())
            answer.text = reply.read().decode()
            return
        for line in reply:
            now = time.perf_counter()
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(f"an error in a stream: {event}")
            answer.usage = event.get("usage") or answer.usage
            for choice in event["choices"]:
                answer.text += choice["text"]
                if choice["finish_reason"] is None:
                    answer.times.append(now)


def named(line, name):
    return line.startswith((name + " ", name + "{"))


def prompt(seed, length):
    """Token ids that every large vocabulary has."""
    draw = random.Random(seed)
    return [draw.randrange(1000, 30000) for _ in range(length)]


def together(calls):
    """Runs all calls at the same time."""
    results = [None] * len(calls)

    def run(index):
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [i for i, result in enumerate(results) if result is None]
    if missing:
        raise SystemExit(f"requests without a result: {missing}")
    return results


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def show(**figures):
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(rounded), flush=True)


def speed(answers):
    """Tokens per second while all streams run. An event may hold several tokens."""
    begin = max(answer.times[0] for answer in answers)
    end = min(answer.times[-1] for answer in answers)
    if begin >= end:
        raise SystemExit("the streams do not overlap; give more --tokens")
    events = [sum(begin < time <= end for time in answer.times) for answer in answers]
    per_event = [answer.tokens / len(answer.times) for answer in answers]
    return sum(n * tokens for n, tokens in zip(events, per_event)) / (end - begin)


def users(server, args):
    server.stream(prompt(0, 32), 8)
    for count in args.users:
        for turn in range(args.rounds):
            seeds = [1000 * (turn + 1) + 100 * count + i for i in range(count)]
            before = [server.metric("sterna_ttft_seconds" + end) for end in ("_sum", "_count")] \
                if args.metrics else None
            answers = together([lambda seed=seed: server.stream(
                prompt(seed, args.prompt), args.tokens) for seed in seeds])
            figures = {
                "users": count,
                "tokens_per_second": speed(answers),
                "first_token_ms": 1e3 * statistics.median(a.first for a in answers),
                "first_token_last_ms": 1e3 * max(a.first for a in answers),
                "gap_p99_ms": 1e3 * percentile([g for a in answers for g in a.gaps], 0.99),
            }
            if before:
                after = [server.metric("sterna_ttft_seconds" + end) for end in ("_sum", "_count")]
                inside = (after[0] - before[0]) / (after[1] - before[1])
                outside = statistics.mean(a.first for a in answers)
                figures["first_token_overhead_ms"] = 1e3 * (outside - inside)
            show(**figures)


def long(server, args):
    """The pauses of a stream, alone and while a long prompt is computed."""
    server.stream(prompt(0, 32), 8)
    alone = server.stream(prompt(1, 32), args.tokens)
    reads = {}

    def stream():
        reads["stream"] = server.stream(prompt(2, 32), args.answer)

    def arrive():
        reads["long"] = server.stream(prompt(3, args.prompt), 1)

    threads = []
    for call in (stream, arrive):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        time.sleep(1)
    short = server.stream(prompt(4, 20), 1)
    for thread in threads:
        thread.join()
    answer, late = reads["stream"], reads["long"]
    window = [g for t, g in zip(answer.times[1:], answer.gaps) if late.start < t <= late.times[0]]
    if answer.times[-1] < late.times[0]:
        raise SystemExit("the stream ended before the long prompt; give a larger --answer")
    show(
        prompt=args.prompt,
        gap_p99_alone_ms=1e3 * percentile(alone.gaps, 0.99),
        gap_p50_alone_ms=1e3 * percentile(alone.gaps, 0.5),
        gap_p99_ms=1e3 * percentile(window, 0.99),
        gap_p50_ms=1e3 * percentile(window, 0.5),
        gaps=len(window),
        first_token_of_prompt_s=late.first,
        first_token_of_short_prompt_ms=1e3 * short.first,
    )


def shared(server, args):
    """How many prompt tokens are computed for users with the same system prompt."""
    system = prompt(5, args.prompt)
    names = ["sterna_prompt_tokens_total", "sterna_cached_tokens_total"]
    before = [server.metric(name) for name in names]
    own = 40
    asks = [lambda i=i: server.stream(system + prompt(100 + i, own), args.tokens,
                                      cache_prompt=True)
            for i in range(args.users[0])]
    together(asks)
    computed, cached = [server.metric(name) - b for name, b in zip(names, before)]
    new = args.prompt + args.users[0] * own
    show(users=args.users[0], computed=int(computed), cached=int(cached), new=new,
         ratio=computed / new)


def idle(server, args):
    """Memory of idle connections, and processor time of an idle server."""
    before = resident(args.pid)
    opened = []
    request = f"GET /health HTTP/1.1\r\n{server.head}\r\n".encode()
    for _ in range(args.connections):
        connection = server.connect()
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "the server refuses connections"
        opened.append(connection)
    after = resident(args.pid)
    used, start = processor(args.pid), time.perf_counter()
    time.sleep(args.seconds)
    share = (processor(args.pid) - used) / (time.perf_counter() - start)
    show(connections=args.connections, mib=(after - before) / 2**20, processor_percent=100 * share)


def resident(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def processor(pid):
    """Seconds of processor time."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def overload(server, args):
    """Many users at once: who is answered, who is refused, and how soon."""
    for count in args.users:
        asks = [lambda i=i: server.stream(prompt(5000 + i, args.prompt), args.tokens, must=False)
                for i in range(count)]
        start = time.perf_counter()
        answers = together(asks)
        took = time.perf_counter() - start
        statuses = collections.Counter(answer.status for answer in answers)
        done = [answer for answer in answers if answer.status == 200]
        refused = [1e3 * answer.first for answer in answers if answer.status != 200]
        show(
            users=count,
            statuses=dict(statuses),
            refused_ms_max=max(refused, default=0.0),
            first_token_s_median=statistics.median(answer.first for answer in done),
            first_token_s_max=max(answer.first for answer in done),
            tokens_per_second=sum(answer.tokens for answer in done) / took,
        )


def tokenizer(args):
    """A byte-level tokenizer with as many tokens as the model of a folder has."""
    config = json.loads((args.folder / "config.json").read_text())
    size = config["vocab_size"]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]
    names = json.loads((args.folder / "tokenizer_config.json").read_text())
    special = [names["bos_token"], names["eos_token"]]
    words = [f"\u0120w{i}" for i in range(size - len(special) - len(letters))]
    vocab = {token: i for i, token in enumerate(special + letters + words)}
    added = [{"id": vocab[token], "content": token, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": True} for token in special]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "vocab": vocab, "merges": []}
    text = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": model}
    (args.folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    numbers = lambda text: [int(n) for n in text.split(",")]
    for verb, call, values in [
        ("users", users, {"users": [1, 4, 8, 16], "prompt": 64, "tokens": 96}),
        ("long", long, {"prompt": 4000, "tokens": 64, "answer": 400}),
        ("shared", shared, {"users": [16], "prompt": 1500, "tokens": 16}),
        ("overload", overload, {"users": [64], "prompt": 64, "tokens": 32}),
        ("idle", idle, {}),
    ]:
        own = verbs.add_parser(verb, help=call.__doc__)
        own.add_argument("url")
        own.add_argument("--key", help="a key of the server")
        for name, value in values.items():
            kind = numbers if name == "users" else int
            own.add_argument(f"--{name}", type=kind, default=value)
        own.set_defaults(call=call)
        if verb == "users":
            own.add_argument("--rounds", type=int, default=3)
            own.add_argument("--metrics", action="store_true",
                             help="compare first tokens with the server's own times")
        if verb == "idle":
            own.add_argument("--pid", type=int, required=True)
            own.add_argument("--connections", type=int, default=1000)
            own.add_argument("--seconds", type=float, default=10)
    own = verbs.add_parser("tokenizer", help=tokenizer.__doc__)
    own.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    if args.verb == "tokenizer":
        tokenizer(args)
    else:
        args.call(Server(args.url, args.key), args)


if __name__ == "__main__":
    main()
