"""Train a small ternary model on conversations of your own, pack it, and talk with it.

    python train_and_talk.py

takes less than a minute on two cores and needs no network. The model has 0.7 million weights; each
of its matrices holds only -1, 0 and +1, times a scale. It learns 24 facts about animals, from
questions that are asked in several ways. It never sees a quarter of the questions, which are asked
then.
"""

import json
import random
from pathlib import Path
from typing import Any

import sterna
from sterna.types import TrainingMetrics

FOLDER = Path("runs/python-example")

FACTS = {
    "tern": ("coast", "fish", "white"),
    "owl": ("forest", "mice", "brown"),
    "bee": ("meadow", "nectar", "yellow"),
    "seal": ("ice", "squid", "grey"),
    "frog": ("pond", "flies", "green"),
    "crow": ("city", "bread", "black"),
    "fox": ("hills", "berries", "red"),
    "crab": ("beach", "algae", "blue"),
}
QUESTIONS = (
    ("Where does the {} live?", "What is the home of the {}?", "Where do I find a {}?"),
    ("What does the {} eat?", "What is the food of the {}?", "What do I give to a {}?"),
    ("What colour is the {}?", "What is the colour of the {}?", "How do I paint a {}?"),
)
ANSWERS = ("{} is its home.", "{} is its food.", "{} is its colour.")

# What a recipe does not say has a default; `trainer.recipe` shows all of it. TOML files work too.
RECIPE: dict[str, Any] = {
    "model": {
        "family": "bitnet",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "rope_theta": 1000.0,
        "initializer_range": 0.1,
        "tie_word_embeddings": False,
    },
    "train": {
        "steps": 300,
        "batch": 4,
        "context": 128,
        "learning_rate": 2e-3,
        "warmup": 20,
        "decay_from": 0.6,
    },
}


def pairs() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Questions with their answers: those to learn, and those that are kept for later."""
    learned: list[tuple[str, str]] = []
    kept: list[tuple[str, str]] = []
    for number, (animal, facts) in enumerate(FACTS.items()):
        for kind, fact in enumerate(facts):
            for way, question in enumerate(QUESTIONS[kind]):
                pair = (question.format(animal), ANSWERS[kind].format(fact.capitalize()))
                # One way to ask is left out for each fact, and never the same for all animals.
                (kept if way == (number + kind) % 3 else learned).append(pair)
    return learned, kept


def conversations(path: Path) -> None:
    """Writes conversations of one to four questions, one per line, as chat data sets have them."""
    rng = random.Random(1)
    learned, _ = pairs()
    learned += [("Hello!", "Hello! Ask me about animals."), ("Thanks.", "You are welcome.")] * 3
    with path.open("w") as file:
        for _ in range(3000):
            messages = []
            for question, answer in rng.choices(learned, k=rng.randint(1, 4)):
                messages.append({"role": "user", "content": question})
                messages.append({"role": "assistant", "content": answer})
            print(json.dumps({"messages": messages}), file=file)


def show(step: int, metrics: TrainingMetrics) -> None:
    """Prints a line now and then. A callback that returns False ends the run."""
    if "held_out_loss" in metrics:
        print(f"step {step}: {metrics['held_out_loss']:.3f} nats per token on unseen text")
    elif "loss" in metrics and step % 50 == 0:
        print(f"step {step}: loss {metrics['loss']:.3f}")


def train(folder: Path = FOLDER, data: dict[str, Any] | None = None) -> Path:
    """Trains and packs the model and returns its file. A second call finds it done."""
    packed = folder / "model.sterna"
    if not packed.exists():
        if data is None:
            FOLDER.mkdir(parents=True, exist_ok=True)
            conversations(FOLDER / "animals.jsonl")
            data = {"chat": [str(FOLDER / "animals.jsonl")], "vocab_size": 400}
        outcome = sterna.Trainer(RECIPE | {"data": data}, out=folder / "run").run(show)
        # The file gets its name only after every trit and every scale was compared.
        report = sterna.convert(outcome["model"], packed)
        size = report["bytes_out"] / 1000
        print(f"packed {report['weights']} ternary weights into {size:.0f} kB, none differs")
    return packed


def main() -> None:
    model = sterna.Model(train())

    print("\nA conversation:")
    messages: list[dict[str, str]] = []
    for question in ("Hello!", "What does the tern eat?", "How do I paint a frog?", "Thanks."):
        messages.append({"role": "user", "content": question})
        print(f"  > {question}", end="\n  ")
        stream = model.chat_stream(messages, max_tokens=40)
        for piece in stream:  # while it is computed
            print(piece, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": stream.result().text})

    _, kept = pairs()
    asked = [model.apply_chat_template([{"role": "user", "content": q}]) for q, _ in kept]
    prompts = [model.tokenizer.encode(text, add_special_tokens=False) for text in asked]
    answers = model.generate_batch(prompts, max_tokens=40)  # all together
    right = sum(done.text == answer for done, (_, answer) in zip(answers, kept, strict=True))
    print(f"\n{right} of {len(kept)} questions that it never saw are answered right")

    # The rule holds whatever the model knows of JSON.
    colours = [facts[2] for facts in FACTS.values()]
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": colours}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": False,
    }
    messages = [{"role": "user", "content": "What colour is the crab?"}]
    print("an answer of a form:", json.loads(model.chat(messages, schema=schema).text))


if __name__ == "__main__":
    main()
