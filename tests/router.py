"""Two replicas behind a router answer as one server does, also when one of them is killed.

    python3 tests/router.py target/release/sterna sglang     # needs the package sglang-router
    python3 tests/router.py target/release/sterna nginx      # deploy/nginx.conf

200 requests are answered by one server, one after the other. Then the same requests go to a router
before two replicas, 8 at a time, and in the middle one replica is killed with -9. A request that
fails is sent again, as OpenAI's clients do it. Every answer must be the same to the byte, and what
a broken stream had shown must be the beginning of the answer.
"""

import concurrent.futures
import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUESTS = 200
CLIENTS = 8
# As OpenAI's clients: two more tries.
TRIES = 3
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} {% endif %}"
)


class Broken(Exception):
    """A request without a whole answer; `shown` is what had come."""

    def __init__(self, why, shown=()):
        super().__init__(why)
        self.shown = shown


def model(folder, sterna):
    """A small trained model with a chat template, packed."""
    source = folder / "source"
    shutil.copytree(ROOT / "tests/fixtures/trained/llama", source)
    (source / "chat_template.jinja").write_text(TEMPLATE)
    packed = folder / "model.sterna"
    command = [sterna, "convert", source, "--out", packed]
    subprocess.run(command, check=True, capture_output=True)
    return packed


def start(sterna, packed, port=0):
    """A server; it returns when requests are answered."""
    command = [sterna, "--quiet", "serve", packed, "--port", str(port), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline().strip()
    assert line.startswith("http://"), f"{command} printed {line!r}"
    until_ready(line, process)
    return process, line


def until_ready(url, process, path="/ready"):
    while True:
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with code {process.returncode}")
        try:
            if send(url, "GET", path)[0] == 200:
                return
        except Broken:
            pass


def send(url, method, path, body=None, on_part=lambda: None):
    """Status and bytes of a reply; `on_part` is called for each part of it that comes."""
    host = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPConnection(host, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        data = bytearray()
        try:
            while part := reply.read1(65536):
                data += part
                on_part()
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the reply breaks off: {error!r}", shown(data)) from error
        return reply.status, bytes(data)
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"no reply: {error!r}") from error
    finally:
        connection.close()


def requests():
    """Chats and completions, whole and streamed, greedy and sampled, with what changes texts."""
    names = ["Mia", "Tom", "Ben", "Lily", "Anna"]
    starts = ["Once {} had a", "{} sat in the", "One day {} went", "{} found a red"]
    fields = [
        {"temperature": 0},
        {"temperature": 1.2},
        {"temperature": 0.9, "top_p": 0.8, "n": 2},
        {"temperature": 1.0, "stop": ["."]},
        {"temperature": 0, "frequency_penalty": 1.0},
        {"temperature": 1.5, "logprobs": True},
    ]
    for i in range(REQUESTS):
        text = starts[i % len(starts)].format(names[i % len(names)])
        body = {"model": "model", "seed": i, **fields[i % len(fields)]}
        # Most prompts have a beginning in common with others.
        if i % 3 == 0:
            body |= {"prompt": text, "max_tokens": 20 + i % 40}
            if body.get("logprobs"):
                body["logprobs"] = 2
            path = "/v1/completions"
        else:
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 20 + i % 40}
            path = "/v1/chat/completions"
        if i % 4 == 1:
            body["stream"] = True
        yield path, body


def events(data):
    """The events of a stream that came whole."""
    parts = bytes(data).decode(errors="ignore").split("\n\n")[:-1]
    return [part.removeprefix("data: ") for part in parts if part.startswith("data: ")]


def shown(data):
    """The choices of the events of a stream."""
    choices = []
    for event in events(data):
        if event != "[DONE]":
            choices += json.loads(event).get("choices", [])
    return [json.dumps(choice) for choice in choices]


def ask(url, path, body, on_part=lambda: None):
    """The part of an answer that is promised, as text."""
    status, data = send(url, "POST", path, body, on_part if body.get("stream") else lambda: None)
    if status != 200:
        raise Broken(f"status {status}: {data[:200]!r}")
    if not body.get("stream"):
        answer = json.loads(data)
        names = ["model", "system_fingerprint", "choices", "sterna"]
        return [json.dumps(answer[name]) for name in names if name in answer]
    if events(data)[-1:] != ["[DONE]"]:
        raise Broken("the stream breaks off", shown(data))
    return shown(data)


class Run:
    """The requests through a router, and what became of them."""

    def __init__(self, url, victim, expected):
        self.url, self.victim, self.expected = url, victim, expected
        self.lock = threading.Lock()
        self.killed_after = 0
        self.done = self.again = self.cut = self.of_victim = 0

    def one(self, item):
        (path, body), expected = item
        for attempt in range(TRIES):
            try:
                answer = ask(self.url, path, body, self.on_part)
                break
            except Broken as broken:
                began = list(broken.shown)
                same = is_beginning(began, expected)
                assert same, f"{body}: the broken stream had {began}, the answer is {expected}"
                with self.lock:
                    self.again += 1
                    self.cut += bool(began)
                if attempt == TRIES - 1:
                    raise
        assert ordered(answer) == ordered(expected), f"{body}:\n{answer}\n{expected}"
        with self.lock:
            self.done += 1

    def on_part(self):
        """Kills the replica while a stream runs, after half of the answers."""
        with self.lock:
            if self.done < REQUESTS // 2 or self.of_victim:
                return
            process, url = self.victim
            self.of_victim = answered(url)
            self.killed_after = self.done
            process.kill()

    def all(self):
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self.one, zip(requests(), self.expected)))


def ordered(parts):
    """Events of several choices come in any order; those of one choice keep theirs."""
    return sorted(parts, key=lambda part: str(index(part)))


def index(part):
    value = json.loads(part)
    return value.get("index", 0) if isinstance(value, dict) else -1


def is_beginning(began, expected):
    """Whether the events of each choice begin those of the answer."""
    for choice in {index(part) for part in began}:
        some = [part for part in began if index(part) == choice]
        every = [part for part in expected if index(part) == choice]
        if every[: len(some)] != some:
            return False
    return True


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def sglang(folder, urls):
    port = free_port()
    command = [sys.executable, "-m", "sglang_router.launch_router", "--worker-urls", *urls,
               "--host", "127.0.0.1", "--port", str(port), "--policy", "cache_aware",
               "--cb-timeout-duration-secs", "1", "--cb-success-threshold", "1",
               "--health-check-endpoint", "/ready", "--health-check-interval-secs", "2",
               "--health-failure-threshold", "1", "--prometheus-port", str(free_port())]
    log = (folder / "router.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return process, f"http://127.0.0.1:{port}", "/v1/models"


def nginx(folder, urls):
    """The configuration of deploy/, with the addresses of this test."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    port = free_port()
    changes = {"listen 8000": f"listen 127.0.0.1:{port}", "/tmp/": f"{folder}/"}
    for i, url in enumerate(urls, 1):
        changes[f"sterna-{i}:8080"] = urllib.parse.urlsplit(url).netloc
    for old, new in changes.items():
        assert old in text, f"deploy/nginx.conf has no {old}"
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(text)
    command = ["nginx", "-c", path, "-g", "daemon off;"]
    log = (folder / "nginx.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return process, f"http://127.0.0.1:{port}", "/ready"


def answered(url):
    lines = send(url, "GET", "/metrics")[1].decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith("sterna_finished_total{"))


def main():
    sterna, name = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    folder = pathlib.Path(tempfile.mkdtemp())
    running = []
    try:
        packed = model(folder, sterna)
        single, url = start(sterna, packed)
        running.append(single)
        expected = [ask(url, path, body) for path, body in requests()]
        single.kill()
        replicas = [start(sterna, packed) for _ in range(2)]
        running += [process for process, _ in replicas]
        urls = [url for _, url in replicas]
        router, url, probe = {"sglang": sglang, "nginx": nginx}[name](folder, urls)
        running.append(router)
        until_ready(url, router, probe)
        run = Run(url, replicas[0], expected)
        run.all()
        assert replicas[0][0].wait() == -signal.SIGKILL, "the replica ended by itself"
        after = answered(urls[1])
        assert 0 < run.of_victim, "the replica that is killed answered nothing before"
        assert REQUESTS // 2 <= after, f"the other replica answered {after} requests"
        print(f"{name}: {run.done} answers are those of one server; a replica was killed with -9 "
              f"after {run.killed_after}, it had given {run.of_victim}; {run.again} requests were "
              f"sent again, {run.cut} of them streams that had begun")
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
