"""lm-evaluation-harness over HTTP gives the figures of `sterna validate`, digit for digit.

Three tasks of 500 items, with token ids as prompts: items one by one and four in a request, eight
requests at a time, and once more while eight chats load the server. The harness has the tokenizer
of the model's folder, because over HTTP it never asks for the token at the start of a text.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from server import Client, Server

ITEMS = 500
WORDS = """Tom Mia Ana went bought saw a the grey kite boat cake, shop. zoo. and felt sad happy
3+4= 12 Zoë naïve Straße 日本 🐟 she he was to in cave It is late.""".split()
YAML = """task: {name}_over_http
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
{rest}
metric_list: [{metrics}]
metadata: {{version: 1.0}}
"""
# What lm-evaluation-harness asks in the data sets whose layouts these are.
QUESTION = r"Question: {{{{{}}}}}\nAnswer:"
TASKS = {
    "piqa": {
        "kind": "multiple_choice", "text": QUESTION.format("goal"), "target": "label",
        "rest": 'doc_to_choice: "{{[sol1, sol2]}}"', "metrics": ["acc", "acc_norm"],
    },
    "arc": {
        "kind": "multiple_choice", "text": QUESTION.format("question"),
        "target": "{{choices.label.index(answerKey)}}",
        "rest": 'doc_to_choice: "{{choices.text}}"', "metrics": ["acc", "acc_norm"],
    },
    "lambada": {
        "kind": "loglikelihood", "text": "{{text.split(' ')[:-1]|join(' ')}}",
        "target": "{{' '+text.split(' ')[-1]}}", "rest": "", "metrics": ["perplexity", "acc"],
    },
    # The text of `sterna validate --text`, by the convention `rolling`.
    "stories": {
        "kind": "loglikelihood_rolling", "text": "", "target": "{{text}}", "rest": "",
        "metrics": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    },
}


def items(name, rng):
    """An item in the layout of a data set."""

    def words(most):
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    if name == "piqa":
        return {"goal": words(9), "sol1": words(6), "sol2": words(6), "label": rng.randint(0, 1)}
    if name == "arc":
        letters = list("ABC")
        choices = {"text": [words(4) for _ in letters], "label": letters}
        return {"question": words(9), "choices": choices, "answerKey": rng.choice(letters)}
    return {"text": words(12) + " " + rng.choice(WORDS)}


def write(folder):
    """The items and the tasks of the harness."""
    rng = random.Random(19)
    for name, task in TASKS.items():
        data = folder / f"{name}.jsonl"
        lines = (json.dumps(items(name, rng), ensure_ascii=False) for _ in range(ITEMS))
        data.write_text("\n".join(lines) + "\n")
        metrics = ", ".join(f"{{metric: {metric}}}" for metric in task["metrics"])
        text = YAML.format(**task | {"name": name, "data": data, "metrics": metrics})
        (folder / f"{name}.yaml").write_text(text)


def validated(folder):
    """The figures of `sterna validate`."""
    sterna, model = sys.argv[1:3]
    tasks = [str(folder / f"{name}.jsonl") for name in TASKS if name != "stories"]
    command = [sterna, "validate", model, "--no-speed", "--json", "--quiet", "--tasks", *tasks]
    command += ["--text", str(folder / "stories.jsonl")]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = found["models"][0]
    figures = {}
    for task in found["tasks"]:
        assert task["items"] == ITEMS, task
        figures |= {(task["task"], s["metric"]): s["value"] for s in task["scores"]}
    by_length = found["accuracy"][0]["perplexity"]["by_length"]
    by_length["bits_per_byte"] = by_length["bits_per_byte"]["mean"]
    return figures | {("stories", name): value for name, value in by_length.items()}


def evaluated(server, folder, names, batch):
    """The figures of the harness. A text that is predicted begins after its first token."""
    has_start = "stories" not in names
    model = f"model=m,base_url={server.url}/v1/completions,tokenizer={sys.argv[3]}"
    model += f",tokenizer_backend=huggingface,tokenized_requests=True,add_bos_token={has_start}"
    model += ",num_concurrent=8,max_length=256"
    out = folder / "out"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", model, "--include_path", str(folder), "--batch_size", str(batch)]
    command += ["--tasks", *(f"{name}_over_http" for name in names), "--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    offline |= {"HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    path.unlink()
    figures = {}
    for name in names:
        found = results[f"{name}_over_http"]
        metrics = TASKS[name]["metrics"]
        figures |= {(name, metric): found[f"{metric},none"] for metric in metrics}
    return figures


def chats(server, count, is_over):
    """Chats that load the server until it is over; a thread for each."""

    def chat(seed):
        body = {"model": "m", "messages": [{"role": "user", "content": f"Tell me {seed}"}]}
        with Client(server) as client:
            while not is_over.is_set():
                status, _, reply = client.post("/v1/chat/completions", body | {"max_tokens": 100})
                assert status == 200, reply
                loads[seed] += 1

    loads = [0] * count
    threads = [threading.Thread(target=chat, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    return threads, loads


def compare(name, found, expected):
    """Shares are equal. Perplexities may differ in the last bits: newer versions of Python add
    numbers with more digits."""
    for key, value in found.items():
        is_share = key[1] in ("acc", "acc_norm")
        is_equal = math.isclose(value, expected[key], rel_tol=0 if is_share else 1e-12)
        assert is_equal, f"{name}: {key} is {value}, of sterna validate {expected[key]}"
    print(f"lm-eval {name}: {len(found)} figures are those of sterna validate", flush=True)


def main():
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        write(folder)
        expected = validated(folder)
        for key, value in expected.items():
            print(f"  {key[0]} {key[1]} {value}")
        *tasks, text = TASKS
        compare("batch 1", evaluated(server, folder, tasks, 1), expected)
        compare("batch 4", evaluated(server, folder, tasks, 4), expected)
        compare("rolling", evaluated(server, folder, [text], 1), expected)
        is_over = threading.Event()
        threads, loads = chats(server, 8, is_over)
        try:
            compare("batch 4 beside 8 chats", evaluated(server, folder, tasks, 4), expected)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert min(loads) > 0, loads
        print(f"{sum(loads)} answers of chats were computed beside it")


if __name__ == "__main__":
    main()
