"""The server of the package answers with the bytes of the package."""

import json
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import sterna


def post(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=60) as reply:
        return json.load(reply)


def test_answers_are_those_of_the_model(models: Path, model: sterna.Model) -> None:
    with sterna.serve(models / "model.sterna", names=["m"]) as server:
        assert server.url == f"http://{server.host}:{server.port}" and server.models == ["m"]
        url = server.url + "/v1/completions"
        for seed in range(8):
            body = {"model": "m", "prompt": "Once Mia", "max_tokens": 20, "seed": seed}
            # The server takes other defaults from generation_config.json.
            found = post(url, body | {"temperature": 1, "top_p": 1})
            done = model.generate("Once Mia", max_tokens=20, temperature=1, seed=seed)
            assert found["choices"][0]["text"] == done.text
            assert found["choices"][0]["finish_reason"] == done.finish_reason
            assert found["system_fingerprint"] == model.fingerprint
        with pytest.raises(HTTPError):
            post(url, {"model": "other", "prompt": "a"})
    with pytest.raises(OSError):
        urlopen(server.url + "/health", timeout=5)
    assert server.stop() == 0


def test_calls_are_those_of_the_server(models: Path, long_model: sterna.Model) -> None:
    schema = {
        "type": "object",
        "properties": {"who": {"enum": ["Mia", "Tom"]}, "age": {"type": "integer", "maximum": 9}},
        "required": ["who", "age"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": name, "parameters": schema}}
             for name in ("feed", "wake")]  # fmt: skip
    messages = [{"role": "user", "content": "Once Mia"}]
    with sterna.serve(models / "chat.sterna", names=["m"]) as server:
        choices: list[str | dict[str, Any]] = [
            "required",
            {"type": "function", "function": {"name": "wake"}},
            "none",
        ]
        for choice in choices:
            for seed in range(4):
                options: dict[str, Any] = {
                    "tools": tools, "tool_choice": choice, "temperature": 1, "seed": seed,
                    "max_tokens": 70, "parallel_tool_calls": seed > 1,
                }  # fmt: skip
                body = {"model": "m", "messages": messages, **options}
                found = post(server.url + "/v1/chat/completions", body)["choices"][0]
                done = long_model.chat(messages, **options)
                assert found["finish_reason"] == done.finish_reason
                assert (found["message"]["content"] or "") == done.content
                calls = found["message"].get("tool_calls", [])
                assert [call["id"] for call in calls] == [call.id for call in done.tool_calls]
                functions = [(call.name, call.arguments) for call in done.tool_calls]
                assert functions == [tuple(call["function"].values()) for call in calls]
                assert done.message.get("tool_calls", []) == calls
                assert (done.text == done.content) == (choice == "none")
                if done.finish_reason == "tool_calls":
                    assert json.loads(functions[0][1])["who"] in ("Mia", "Tom")
                    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"}
                               for call in calls]  # fmt: skip
                    whole = [*messages, done.message, *results]
                    assert long_model.chat(whole, max_tokens=2).usage.completion_tokens <= 2


def test_servers_end_while_they_answer(models: Path) -> None:
    server = sterna.serve([models / "chat.sterna", models / "model.sterna"], drain=0)
    assert len(server.models) == 2
    body = {"model": server.models[0], "prompt": "one", "max_tokens": 4000, "ignore_eos": True}
    failures = []

    def ask() -> None:
        try:
            post(server.url + "/v1/completions", body)
        except (OSError, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.stop()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    server.stop()
