"""The clients that people use, each against the same requests sent with Python's standard library.

A client must get the same text, whole and in parts, and errors as the exceptions that it documents.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server, until

QUESTION = "What is 3+4?"
MESSAGES = [{"role": "user", "content": QUESTION}]
CHAT = {"model": "m", "messages": MESSAGES, "max_tokens": 24, "seed": 7}
TEXT = {"model": "m", "prompt": "Once", "max_tokens": 24, "seed": 7}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
SUM = {
    "type": "object",
    "properties": {"result": {"type": "integer", "minimum": 10, "maximum": 99}},
    "required": ["result"],
    "additionalProperties": False,
}
FUNCTION = {"name": "tell", "description": "Tells the sum.", "parameters": SUM, "strict": True}
TOOLS = {
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "tell"}},
    "max_tokens": 100,
}


TEMPLATE = """{%% if tools %%}{{ 'tools: ' + tools | tojson + '\\n' }}{%% endif %%}
{%%- for m in messages %%}{{ m.role + ': ' + (m.content or '') }}
{%%- for c in m.tool_calls or [] %%}
{{- '\\n' if m.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- c.function.arguments | tojson + '}\\n</tool_call>' }}{%% endfor %%}
{{- '%s' if m.role == 'assistant' else '' }}{{ '\\n' }}{%% endfor %%}
{%%- if add_generation_prompt %%}{{ 'assistant: ' }}{%% endif %%}"""


class Expected:
    """What the server answers without a client between."""

    def __init__(self, server):
        self.chat = self.answer(server, "/v1/chat/completions", CHAT)
        self.text = self.answer(server, "/v1/completions", TEXT)
        body = {"model": "m", "input": ["a", "Once"]}
        data = self.answer(server, "/v1/embeddings", body)["data"]
        self.vectors = [one["embedding"] for one in data]
        self.message = self.chat["choices"][0]["message"]["content"]
        assert self.message.strip(), "the model answers nothing, so nothing can be compared"

    @staticmethod
    def answer(server, path, body):
        status, _, reply = server.post(path, body)
        assert status == 200, reply
        return reply


def raised(kind, call):
    """The exception of a call, which must be of this kind."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"nothing was raised, expected {kind.__name__}")


def openai(server, expected):
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    reply = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=3)
    choice = reply.choices[0]
    assert choice.message.content == expected.message and choice.message.refusal is None
    assert reply.system_fingerprint == expected.chat["system_fingerprint"]
    assert reply.usage.total_tokens == expected.chat["usage"]["total_tokens"]
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
    with client.chat.completions.create(**CHAT, **STREAM) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == expected.message
    assert chunks[-1].choices == []
    # How many tokens were guessed depends on what was asked before.
    assert chunks[-1].usage.total_tokens == reply.usage.total_tokens
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    text = expected.text["choices"][0]["text"]
    assert client.completions.create(**TEXT).choices[0].text == text
    echo = client.completions.create(**TEXT | {"prompt": [[5, 6, 7]]}, echo=True, logprobs=2)
    assert len(echo.choices[0].logprobs.token_logprobs) == 3 + echo.usage.completion_tokens
    # It asks for base64, and reads it.
    vectors = client.embeddings.create(model="m", input=["a", "Once"]).data
    assert [one.embedding for one in vectors] == as_f32(expected.vectors)
    raw = client.embeddings.create(model="m", input="a", encoding_format="base64").data[0].embedding
    assert len(base64.b64decode(raw)) == 4 * len(expected.vectors[0])
    assert [model.id for model in client.models.list()] == ["m"]
    assert client.models.retrieve("m").owned_by == "sterna"
    raised(openai.NotFoundError, lambda: client.chat.completions.create(**CHAT | {"model": "x"}))
    error = raised(openai.BadRequestError, lambda: client.completions.create(**TEXT | {"top_p": 7}))
    assert error.param == "top_p" and error.code == "invalid_value", error
    long = TEXT | {"prompt": "Once " * 4000}
    error = raised(openai.BadRequestError, lambda: client.completions.create(**long))
    assert error.code == "context_length_exceeded", error
    openai_leaves(server, client)
    asyncio.run(openai_async(server, expected))


def is_sum(arguments):
    return list(arguments) == ["result"] and 10 <= arguments["result"] <= 99


def as_f32(vectors):
    """Numbers of JSON as the single precision that base64 holds."""
    size = len(vectors[0])
    return [list(struct.unpack(f"<{size}f", struct.pack(f"<{size}f", *one))) for one in vectors]


def openai_leaves(server, client):
    """A stream that is closed is work that ends."""
    before = server.metrics()["sterna_cancelled_total"]
    stream = client.completions.create(**TEXT | {"prompt": ["Once"] * 200, "n": 8}, stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: server.metrics()["sterna_cancelled_total"] > before, "cancelled")
    server.until_idle()


async def openai_async(server, expected):
    """Eight at a time."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        replies = await asyncio.gather(*(client.chat.completions.create(**CHAT) for _ in range(8)))
    assert {reply.choices[0].message.content for reply in replies} == {expected.message}


def langchain(server, expected):
    import openai
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import BaseModel, Field

    class Sum(BaseModel, extra="forbid"):
        result: int = Field(ge=10, le=99)

    where = {"model": "m", "base_url": f"{server.url}/v1", "api_key": "none"}
    chat = ChatOpenAI(**where, max_tokens=24, seed=7, stream_usage=True)
    reply = chat.invoke(QUESTION)
    assert reply.content == expected.message
    assert reply.usage_metadata["total_tokens"] == expected.chat["usage"]["total_tokens"]
    parts = list(chat.stream([("human", QUESTION)]))
    assert "".join(part.content for part in parts) == expected.message
    assert [reply.content for reply in chat.batch([QUESTION] * 3)] == [expected.message] * 3
    embeddings = OpenAIEmbeddings(**where, check_embedding_ctx_length=False)
    assert embeddings.embed_documents(["a", "Once"]) == as_f32(expected.vectors)
    long = ChatOpenAI(**where, max_tokens=100, seed=7)
    assert 10 <= long.with_structured_output(Sum).invoke(QUESTION).result <= 99
    # The model's template shows no calls. That is said, and not answered with something else.
    raised(openai.BadRequestError, lambda: chat.bind_tools([Sum]).invoke(QUESTION))


def litellm(server, expected):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    where = {"api_base": f"{server.url}/v1", "api_key": "none"}
    chat = CHAT | {"model": "openai/m"} | where
    assert litellm.completion(**chat).choices[0].message.content == expected.message
    parts = list(litellm.completion(**chat, **STREAM))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == expected.message
    usage = [part.usage for part in parts if getattr(part, "usage", None)]
    assert usage[-1].total_tokens == expected.chat["usage"]["total_tokens"]
    text = TEXT | {"model": "text-completion-openai/m"} | where
    found = litellm.text_completion(**text).choices[0].text
    assert found == expected.text["choices"][0]["text"]
    where |= {"encoding_format": "float"}
    vectors = litellm.embedding(model="openai/m", input=["a"], **where).data
    assert vectors[0]["embedding"] == expected.vectors[0]
    raised(litellm.NotFoundError, lambda: litellm.completion(**chat | {"model": "openai/x"}))


def instructor(server, expected):
    """Answers of a schema; those by calls of tools are below."""
    import instructor
    import openai
    from pydantic import BaseModel, Field

    class Sum(BaseModel, extra="forbid"):
        result: int = Field(ge=10, le=99)

    plain = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    asked = CHAT | {"max_tokens": 100, "response_model": Sum, "max_retries": 0}
    client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
    assert 10 <= client.chat.completions.create(**asked).result <= 99
    reply = client.chat.completions.create(**CHAT, response_model=None)
    assert reply.choices[0].message.content == expected.message


def llm(server, expected):
    """The command line of a user."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"- model_id: sterna\n  model_name: m\n  api_base: {server.url}/v1\n"
        (Path(folder) / "extra-openai-models.yaml").write_text(model)
        options = ["-o", "seed", "7", "-o", "max_tokens", "24", "--key", "none", "--no-log"]
        command = [sys.executable, "-m", "llm", "-m", "sterna", *options, QUESTION]
        for more in [], ["--no-stream"]:
            env = os.environ | {"LLM_USER_PATH": folder}
            found = subprocess.run(command + more, env=env, capture_output=True, text=True)
            assert found.returncode == 0, found.stderr
            shown = found.stdout.strip()
            assert shown == expected.message.strip(), (shown, expected.message)


def anthropic(server, expected):
    import anthropic

    client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
    # Without a seed only what is most probable can be compared.
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 24}
    status, _, greedy = server.post("/v1/chat/completions", body | {"temperature": 0})
    assert status == 200, greedy
    text = greedy["choices"][0]["message"]["content"]
    body |= {"extra_body": {"temperature": 0}}
    reply = client.messages.create(**body)
    assert reply.content[0].text == text and reply.role == "assistant"
    # Tokens of the cache are not input tokens here.
    read = reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)
    assert read == greedy["usage"]["prompt_tokens"], reply.usage
    with client.messages.stream(**body) as stream:
        assert "".join(stream.text_stream) == text
        assert stream.get_final_message().stop_reason == reply.stop_reason
    counted = client.messages.count_tokens(model="m", messages=MESSAGES)
    assert counted.input_tokens == greedy["usage"]["prompt_tokens"]
    raised(anthropic.NotFoundError, lambda: client.messages.create(**body | {"model": "x"}))
    wrong = body | {"max_tokens": -1}
    error = raised(anthropic.BadRequestError, lambda: client.messages.create(**wrong))
    assert error.body["error"]["type"] == "invalid_request_error", error.body


def ollama(server, expected):
    import ollama

    client = ollama.Client(host=server.url)
    options = {"seed": 7, "num_predict": 24}
    assert client.chat("m", MESSAGES, options=options).message.content == expected.message
    parts = list(client.chat("m", MESSAGES, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == expected.message
    assert parts[-1].done and parts[-1].eval_count > 0
    raw = client.generate("m", "Once", raw=True, options=options).response
    assert raw == expected.text["choices"][0]["text"]
    vectors = [list(vector) for vector in client.embed("m", ["a", "Once"]).embeddings]
    assert vectors == expected.vectors
    assert "m" in [model.model.removesuffix(":latest") for model in client.list().models]
    assert client.show("m").modelinfo
    raised(ollama.ResponseError, lambda: client.chat("x", MESSAGES))
    # It has no choice, and the model's template shows no calls.
    error = raised(
        ollama.ResponseError, lambda: client.chat("m", MESSAGES, tools=TOOLS["tools"])
    )
    assert error.error.startswith("tools leaves it to the model"), error


def responses(server, expected):
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    body = {"model": "m", "input": QUESTION, "max_output_tokens": 24, "temperature": 0}
    reply = client.responses.create(**body)
    greedy = client.chat.completions.create(**CHAT | {"temperature": 0}).choices[0].message.content
    assert reply.output_text == greedy
    with client.responses.stream(**body) as stream:
        events = list(stream)
    assert events[0].type == "response.created", events[0]
    # An answer that its limit ends is not complete.
    end = "completed" if reply.status == "completed" else "incomplete"
    assert events[-1].type == f"response.{end}", events[-1]
    assert events[-1].response.output_text == greedy
    parts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(parts) == greedy
    assert [event.sequence_number for event in events] == list(range(len(events)))
    raised(
        openai.BadRequestError,
        lambda: client.responses.create(**body, previous_response_id="resp_1"),
    )


def tools(server):
    """Calls of tools by each client, whole and in parts."""
    import anthropic
    import instructor
    import ollama
    import openai
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel, Field

    class Sum(BaseModel, extra="forbid"):
        result: int = Field(ge=10, le=99)

    plain = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    body = CHAT | TOOLS
    choice = plain.chat.completions.create(**body).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert call.function.name == "tell" and is_sum(json.loads(call.function.arguments))
    with plain.chat.completions.stream(**body) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls[0].id == call.id and message.content is None
    assert message.tool_calls[0].function.arguments == call.function.arguments
    # The result goes back, and the model may choose.
    result = {"role": "tool", "tool_call_id": call.id, "content": "7"}
    turns = [*MESSAGES, choice.message.model_dump(exclude_none=True), result]
    free = body | {"messages": turns, "tool_choice": "auto"}
    reply = plain.chat.completions.create(**free).choices[0]
    assert reply.message.content or reply.message.tool_calls, reply
    where = {"model": "m", "base_url": f"{server.url}/v1", "api_key": "none"}
    chat = ChatOpenAI(**where, max_tokens=100, seed=7)
    called = chat.bind_tools([Sum], tool_choice="Sum").invoke(QUESTION).tool_calls
    assert [one["name"] for one in called] == ["Sum"] and is_sum(called[0]["args"])
    structured = chat.with_structured_output(Sum, method="function_calling")
    assert 10 <= structured.invoke(QUESTION).result <= 99
    client = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)
    asked = CHAT | {"max_tokens": 100, "response_model": Sum, "max_retries": 0}
    assert 10 <= client.chat.completions.create(**asked).result <= 99
    messages = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0).messages
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 100, "extra_body": {"seed": 7}}
    body["tools"] = [{"name": "tell", "description": "Tells the sum.", "input_schema": SUM}]
    body["tool_choice"] = {"type": "tool", "name": "tell"}
    reply = messages.create(**body)
    assert reply.stop_reason == "tool_use" and is_sum(reply.content[0].input), reply
    with messages.stream(**body) as stream:
        (block,) = stream.get_final_message().content
    assert (block.id, block.input) == (reply.content[0].id, reply.content[0].input)
    body = {"model": "m", "input": QUESTION, "max_output_tokens": 100, "extra_body": {"seed": 7}}
    body["tools"] = [FUNCTION | {"type": "function"}]
    body["tool_choice"] = {"type": "function", "name": "tell"}
    (item,) = plain.responses.create(**body).output
    assert item.type == "function_call" and is_sum(json.loads(item.arguments)), item
    with plain.responses.stream(**body) as stream:
        events = list(stream)
    kind = "response.function_call_arguments.delta"
    assert "".join(event.delta for event in events if event.type == kind) == item.arguments
    assert events[-1].response.output[0].call_id == item.call_id
    # It has no choice: the model may call.
    local = ollama.Client(host=server.url)
    options = {"seed": 7, "num_predict": 60}
    message = local.chat("m", MESSAGES, tools=TOOLS["tools"], options=options).message
    parts = local.chat("m", MESSAGES, tools=TOOLS["tools"], options=options, stream=True)
    assert "".join(part.message.content or "" for part in parts) == (message.content or "")


@contextlib.contextmanager
def model_with_tools():
    """The same model with a longer context and a template that writes calls as Hermes does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        shutil.copytree(Path(sys.argv[2]).with_name("model"), copy)
        config = json.loads((copy / "config.json").read_text())
        config["max_position_embeddings"] = 2048
        (copy / "config.json").write_text(json.dumps(config))
        settings = json.loads((copy / "tokenizer_config.json").read_text())
        (copy / "chat_template.jinja").write_text(TEMPLATE % settings["eos_token"])
        yield copy


def main():
    clients = [openai, langchain, litellm, instructor, llm, anthropic, ollama, responses]
    names = sys.argv[3:] or [client.__name__ for client in clients]
    failed = []
    with Server() as server:
        expected = Expected(server)
        for client in clients:
            if client.__name__ not in names:
                continue
            try:
                client(server, expected)
                server.until_idle()
            except Exception:
                failed.append(client.__name__)
                print(f"{client.__name__}: failed", file=sys.stderr)
                sys.excepthook(*sys.exc_info())
            else:
                print(f"{client.__name__}: fine", flush=True)
    if "tools" in names or not sys.argv[3:]:
        with model_with_tools() as model, Server(model=model) as server:
            tools(server)
            server.until_idle()
        print("tools: fine", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
