"""Three models, the same questions, one picture.

    python evaluate_and_plot.py [OUT.svg]

The models are the one of train_and_talk.py after 60, 80 and 300 steps of training. Each question
has eight possible answers, and the model says how probable it finds them, as in benchmarks. The
picture shows the share of questions for which the right one is the most probable, with the standard
error of that share. With matplotlib it is drawn by that, and without it by some lines at the end.
"""

import math
import sys
from functools import partial
from pathlib import Path

import sterna
from train_and_talk import ANSWERS, FACTS, FOLDER, RECIPE, conversations, pairs

STEPS = (60, 80, 300)


def models() -> dict[int, Path]:
    """Trains in three parts. A run that was stopped goes on where it was, so nothing is lost."""
    folder = FOLDER / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    conversations(folder / "animals.jsonl")
    data = {"chat": [str(folder / "animals.jsonl")], "vocab_size": 400}
    files = {steps: folder / f"{steps}.sterna" for steps in STEPS}
    for steps, path in files.items():
        if not path.exists():
            # False from the callback ends the run, which then exports the model as it is.
            trainer = sterna.Trainer(RECIPE | {"data": data}, out=folder / "run")
            outcome = trainer.run(partial(is_before, steps))
            sterna.convert(outcome["model"], path)
    return files


def is_before(last: int, step: int, _: object) -> bool:
    return step < last


def choices(answer: str) -> list[str]:
    """All answers to questions of this kind; the right one is first."""
    for kind, form in enumerate(ANSWERS):
        texts = [form.format(facts[kind].capitalize()) for facts in FACTS.values()]
        if answer in texts:
            return [answer, *(text for text in texts if text != answer)]
    raise ValueError(f"no question has the answer {answer}")


def accuracy(model: sterna.Model, questions: list[tuple[str, str]]) -> tuple[float, float]:
    """The share of right answers, and its standard error."""
    encode = partial(model.tokenizer.encode, add_special_tokens=False)
    items = []
    for question, answer in questions:
        prompt = encode(model.apply_chat_template([{"role": "user", "content": question}]))
        items += [(prompt, encode(text)) for text in choices(answer)]
    scores = [score.logprob for score in model.score_batch(items)]
    rows = [scores[start : start + len(FACTS)] for start in range(0, len(scores), len(FACTS))]
    share = sum(row[0] == max(row) for row in rows) / len(rows)
    return share, math.sqrt(share * (1 - share) / len(rows))


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else FOLDER / "accuracy.svg")
    _, questions = pairs()
    print(f"{len(questions)} questions, {len(FACTS)} answers each; by chance {1 / len(FACTS):.0%}")
    results = {}
    for steps, path in models().items():
        with sterna.Model(path) as model:
            share, error = results[steps] = accuracy(model, questions)
            print(f"after {steps} steps: {share:.0%} right, ± {error:.0%}")
    plot(results, out)
    print(f"the picture is {out}")


def plot(results: dict[int, tuple[float, float]], out: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        out.write_text(svg(results))
        return
    shares, errors = zip(*results.values(), strict=True)
    axes = Figure(figsize=(5, 3), layout="constrained").add_subplot()
    axes.errorbar(list(results), shares, yerr=errors, marker="o", capsize=4)
    axes.axhline(1 / len(FACTS), linestyle=":", color="gray")
    axes.set(xlabel="steps of training", ylabel="right answers", ylim=(0, 1.02))
    axes.figure.savefig(out)


def svg(results: dict[int, tuple[float, float]]) -> str:
    """Points with their errors. x: steps, y: share."""
    width, height, edge = 500, 300, 50

    def x(steps: float) -> float:
        return edge + (width - 2 * edge) * steps / max(results)

    def y(share: float) -> float:
        return edge + (height - 2 * edge) * (1 - share)

    parts = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{edge} {y(share):.1f}H{width - edge}" stroke="#ddd"/>')
        parts.append(f'<text x="8" y="{y(share) + 4:.1f}">{share:.0%}</text>')
    line = " ".join(f"{x(steps):.1f},{y(share):.1f}" for steps, (share, _) in results.items())
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="2"/>')
    for steps, (share, error) in results.items():
        bar = f"M{x(steps):.1f} {y(share - error):.1f}V{y(share + error):.1f}"
        parts.append(f'<path d="{bar}" stroke="#1f77b4" stroke-width="2"/>')
        parts.append(f'<circle cx="{x(steps):.1f}" cy="{y(share):.1f}" r="4" fill="#1f77b4"/>')
        parts.append(f'<text x="{x(steps) - 12:.1f}" y="{height - 28}">{steps}</text>')
    parts.append(f'<text x="{width // 2 - 60}" y="{height - 8}">steps of training</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    return head + ' font-family="sans-serif" font-size="13">\n' + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    main()
