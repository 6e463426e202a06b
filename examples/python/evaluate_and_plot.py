"""Three models, the same questions, one picture.

    python evaluate_and_plot.py [OUT.svg]

The models are one model after 150, 300 and 600 steps of training. Questions about short stories
have two answers each, and the model is asked how probable it finds them, as benchmarks do it. The
picture shows how often it prefers the right one, with the error of that share. With matplotlib
installed it is drawn with that, otherwise by the thirty lines at the end.
"""

import math
import random
import sys
from functools import partial
from pathlib import Path

import sterna
from train_and_talk import RECIPE

FOLDER = Path("runs/python-evaluate")
STEPS = (150, 300, 600)
NAMES, PLACES = ["Mia", "Tom", "Zoe", "Ben", "Ivy"], ["barn", "park", "shop", "cave", "zoo"]


def questions(count: int) -> list[tuple[str, str, str]]:
    """Stories with a question, the right answer and a wrong one."""
    rng = random.Random(1)
    found = []
    for _ in range(count):
        (a, b), (here, there) = rng.sample(NAMES, 2), rng.sample(PLACES, 2)
        asked, right, wrong = rng.choice([(a, here, there), (b, there, here)])
        story = f"Once {a} sat in the {here}. {b} was in the {there}. Where is {asked}?"
        found.append((story, f" In the {right}.", f" In the {wrong}."))
    return found


def models() -> dict[int, Path]:
    """Trains in three parts. A run that was stopped goes on where it was, so nothing is lost."""
    files = {}
    recipe = RECIPE | {"train": RECIPE["train"] | {"steps": STEPS[-1]}}
    for steps in STEPS:
        files[steps] = FOLDER / f"{steps}.sterna"
        if not files[steps].exists():
            # False from the callback ends the run, which then exports the model as it is.
            trainer = sterna.Trainer(recipe, out=FOLDER)
            outcome = trainer.run(partial(is_before, steps))
            sterna.convert(outcome["model"], files[steps])
    return files


def is_before(last: int, step: int, _: object) -> bool:
    return step < last


def accuracy(model: sterna.Model, items: list[tuple[str, str, str]]) -> tuple[float, float]:
    """The share of right answers, and its standard error."""
    pairs = [(story, answer) for story, *answers in items for answer in answers]
    scores = [score.logprob for score in model.score_batch(pairs)]
    right, wrong = scores[::2], scores[1::2]
    share = sum(a > b for a, b in zip(right, wrong, strict=True)) / len(items)
    return share, math.sqrt(share * (1 - share) / len(items))


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else FOLDER / "accuracy.svg")
    items = questions(200)
    story, right, wrong = items[0]
    print(f"{len(items)} questions like: {story}{right} or{wrong}")
    results = {}
    for steps, path in models().items():
        with sterna.Model(path) as model:
            share, error = results[steps] = accuracy(model, items)
            print(f"after {steps} steps: {share:.1%} right, ± {error:.1%}")
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
    axes.axhline(0.5, linestyle=":", color="gray")
    axes.set(xlabel="steps of training", ylabel="right answers", ylim=(0.4, 1.02))
    axes.figure.savefig(out)


def svg(results: dict[int, tuple[float, float]]) -> str:
    """Points with their errors. x: steps, y: from 40 % to 100 %."""
    width, height, edge = 500, 300, 50

    def x(steps: float) -> float:
        return edge + (width - 2 * edge) * steps / max(results)

    def y(share: float) -> float:
        return edge + (height - 2 * edge) * (1 - share) / 0.6

    parts = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for share in (0.4, 0.5, 0.6, 0.8, 1.0):
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
