"""Train a small ternary model from nothing, pack it, and talk with it.

    python train_and_talk.py

takes less than a minute on two cores and needs no network. The model has a million weights, each
of its matrices holds only -1, 0 and +1 times a scale, and the file that runs is about 700 kB. It
learns to greet, to remember who has what in a story of three sentences, and to tell such stories.
"""

from pathlib import Path
from typing import Any

import sterna
from sterna.types import TrainingMetrics

FOLDER = Path("runs/python-example")

# A recipe is a dict, or a TOML file: `configs/` has some. What it does not say has a default, and
# `trainer.recipe` shows all of it.
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
    # Texts come from built-in generators here. `"text": ["my/texts"]` trains on files instead.
    "data": {"mix": "stories=0.5,chat=0.5", "documents": 12_000, "vocab_size": 600},
    "train": {
        "steps": 700,
        "batch": 4,
        "context": 128,
        "learning_rate": 2e-3,
        "warmup": 40,
        "decay_from": 0.6,
    },
}


def train() -> Path:
    """Trains and packs the model, and returns its file. A second call finds it trained."""

    def show(step: int, metrics: TrainingMetrics) -> None:
        if "held_out_loss" in metrics:
            print(f"step {step}: {metrics['held_out_loss']:.3f} nats per token on unseen text")
        elif "loss" in metrics and step % 100 == 0:
            print(f"step {step}: loss {metrics['loss']:.3f}")

    outcome = sterna.Trainer(RECIPE, out=FOLDER).run(show)
    packed = FOLDER / "model.sterna"
    if not packed.exists():
        # The file gets its name only after every trit and every scale was compared.
        report = sterna.convert(outcome["model"], packed)
        size = report["bytes_out"] / 1000
        print(f"packed {report['weights']} ternary weights into {size:.0f} kB, none differs")
    return packed


def main() -> None:
    model = sterna.Model(train())

    print("\nA story, piece by piece:")
    for piece in model.stream("Once Mia", temperature=0.7, seed=1, max_tokens=60):
        print(piece, end="", flush=True)

    print("\n\nA conversation:")
    messages: list[dict[str, str]] = []
    for question in (
        "Hello!",
        "What are you?",
        "Once Tom sat in the barn. Mia was in the park. Mia found a red key. Who has the key?",
        "Where is Tom?",
    ):
        messages.append({"role": "user", "content": question})
        answer = model.chat(messages, max_tokens=40).text
        print(f"  > {question}\n  {answer}")
        messages.append({"role": "assistant", "content": answer})

    print("\nAn answer of a form, whatever the model knows of JSON:")
    schema = {
        "type": "object",
        "properties": {
            "who": {"enum": ["Mia", "Tom"]},
            "colour": {"enum": ["red", "gold", "black"]},
        },
        "required": ["who", "colour"],
        "additionalProperties": False,
    }
    story = "Once Mia sat in the barn. Tom was in the park. Tom found a gold bell."
    asked = {"role": "user", "content": f"{story} Who has the bell?"}
    print(" ", model.chat([asked], schema=schema).text)


if __name__ == "__main__":
    main()
