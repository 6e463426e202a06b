"""A server of our own to test, and requests to it with nothing but Python's standard library."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

HOST = "127.0.0.1"
# Longest wait for anything that must happen, in seconds. Nothing waits that long if all is well.
PATIENCE = 60


class Server:
    """`sterna serve` with these options on a free port. Its model is called `m`."""

    def __init__(self, *options, port=0, model=None):
        sterna, default = sys.argv[1:3]
        model = model or default
        command = [sterna, "serve", model, "--name", "m", "--port", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)\n", line)
        assert found, f"the server printed {line!r}, expected its address"
        self.port = int(found[1])
        until(lambda: self.status("/ready") == 200, "ready")
        # What it prints later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends it. A server that has died was not asked to."""
        died = self.process.poll()
        self.process.kill()
        self.process.wait()
        assert died in (None, 0), f"the server ended with exit code {died}"

    @property
    def url(self):
        return f"http://{HOST}:{self.port}"

    def get(self, path):
        """The status and the body of a GET."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def status(self, path):
        return self.get(path)[0]

    def metrics(self):
        """The numbers of /metrics, without those that have several labels."""
        lines = self.get("/metrics")[1].splitlines()
        found = (re.fullmatch(r'(sterna_\w+)(?:\{model_name="m"\})? (\S+)', line) for line in lines)
        return {match[1]: float(match[2]) for match in found if match}

    def is_idle(self):
        """Whether nothing is computed, nothing waits, and no page is held outside the cache."""
        now = self.metrics()
        # The request for the metrics is open, too.
        busy = now["sterna_requests_running"] + now["sterna_requests_waiting"]
        held = now["sterna_kv_pages_used"] - now["sterna_kv_pages_cached"]
        return busy + held + now["sterna_waiting_tokens"] == 0 and now["sterna_requests_open"] == 1

    def until_idle(self):
        until(self.is_idle, "idle", self.metrics)

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) << 10

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def post(self, path, body):
        """The status, the headers and the JSON of a POST on a connection of its own."""
        with Client(self) as client:
            return client.post(path, body)

    def open(self, path, body):
        """A socket over which a request was sent. Nothing was read from it."""
        connection = socket.create_connection((HOST, self.port), timeout=PATIENCE)
        connection.sendall(request(path, json.dumps(body).encode()))
        return connection


class Client:
    """A connection that is kept."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, path, body):
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        return self.connection.getresponse()

    def post(self, path, body):
        reply = self.send(path, body)
        return reply.status, reply.headers, json.loads(reply.read())

    def stream(self, path, body):
        """The events of a stream, without its last one, which must be [DONE]."""
        reply = self.send(path, body)
        text = reply.read().decode()
        assert reply.status == 200, text
        events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        assert events.pop() == "[DONE]", text
        return [json.loads(event) for event in events]


def request(path, body, headers=()):
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def until(condition, name, report=lambda: ""):
    """Waits for what must happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not {name} after {PATIENCE} s {report()}"
        time.sleep(0.01)


def together(count, work):
    """Runs `work(0)` to `work(count - 1)` at the same time. The first failure is that of all."""
    failures, results = [], [None] * count

    def run(index):
        try:
            results[index] = work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
