"""Three ways to the same figures: in this process, over HTTP, and by `sterna validate`.

`python three_ways.py STERNA MODEL.sterna MODEL_FOLDER` runs the tasks of tests/clients/harness.py,
500 items each, with lm-evaluation-harness: `python -m sterna.lm_eval` and a server. Every
log-likelihood and every text of every item must be equal, and the figures those of validate.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/clients"))

import harness as clients
from server import Server

# Texts that the model writes, of the first items of a task.
WRITTEN = """task: written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "."
generation_kwargs: {{until: ["."], max_gen_toks: 24, do_sample: false}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 1.0}}
"""
MAX_LENGTH = 256


def evaluated(folder: Path, module: str, model: str, args: str, tasks: list[str]) -> Any:
    """The results of the harness, and what the model answered for each item of each task."""
    out = folder / "out"
    command = [sys.executable, "-m", module, "run", "--model", model, "--model_args", args]
    command += ["--include_path", str(folder), "--batch_size", "16", "--log_samples"]
    command += ["--tasks", *tasks, "--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    offline |= {"HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    answers = {}
    for task in tasks:
        (samples,) = out.rglob(f"samples_{task}_*.jsonl")
        lines = [json.loads(line) for line in samples.read_text().splitlines()]
        answers[task] = {line["doc_id"]: line["resps"] for line in lines}
        samples.unlink()
    path.unlink()
    return results, answers


def main() -> None:
    model, tokenizer = sys.argv[2:4]
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        clients.write(folder)
        texts = (folder / "lambada.jsonl").read_text().splitlines()[:60]
        (folder / "written.jsonl").write_text("\n".join(texts) + "\n")
        (folder / "written.yaml").write_text(WRITTEN.format(data=folder / "written.jsonl"))
        expected = clients.validated(folder)
        names = [f"{name}_over_http" for name in clients.TASKS]
        args = f"pretrained={model},max_length={MAX_LENGTH}"
        here = evaluated(folder, "sterna.lm_eval", "sterna", args, [*names, "written"])
        figures = {
            (name, metric): here[0][f"{name}_over_http"][f"{metric},none"]
            for name, task in clients.TASKS.items()
            for metric in task["metrics"]
        }
        clients.compare("in process", figures, expected)

        args = f"model=m,base_url={server.url}/v1/completions,tokenizer={tokenizer}"
        args += ",tokenizer_backend=huggingface,tokenized_requests=True,num_concurrent=8"
        # The harness takes one token off the length for HTTP. `stories` begin after their first
        # token there; the others with the token that begins texts.
        args += f",max_length={MAX_LENGTH + 1},add_bos_token="
        *tasks, stories = names
        there: dict[str, Any] = {}
        for has_start, part in [(True, [*tasks, "written"]), (False, [stories])]:
            found = evaluated(folder, "lm_eval", "local-completions", f"{args}{has_start}", part)
            there |= found[1]
        items = 0
        for task, answers in here[1].items():
            for number, answer in answers.items():
                other = there[task][number]
                assert answer == other, f"{task} {number}: {answer}, over HTTP {other}"
                items += 1
        print(f"the answers to {items} items are those over HTTP, digit for digit")


main()
