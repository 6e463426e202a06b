"""A sampler of your own, and a search: the model gives logits as numpy arrays, you choose.

    python own_sampler.py [MODEL]

Without a model, a small one learns to tell stories first, which takes some seconds.
"""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import sterna
from train_and_talk import FOLDER, train

TOKENS = 40


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithms of probabilities, (vocab_size,)."""
    wide = logits.astype(np.float64) - logits.max()
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return logs


def typical(logits: NDArray[np.float32], rng: np.random.Generator, mass: float = 0.8) -> int:
    """Locally typical sampling (Meister et al. 2022): tokens whose surprise is nearest to the
    expected one, until their probability is `mass`. `generate` does not have it; it is five lines.
    """
    logs = log_softmax(logits)
    p = np.exp(logs)
    entropy = -(p * logs).sum()
    order = np.abs(-logs - entropy).argsort()
    kept = order[: np.searchsorted(p[order].cumsum(), mass) + 1]
    return int(rng.choice(kept, p=p[kept] / p[kept].sum()))


@dataclass
class Beam:
    """A text that may become the most probable one."""

    session: sterna.Session
    logprob: float
    tokens: list[int]


def search(model: sterna.Model, session: sterna.Session, width: int) -> Beam:
    """Beam search. A fork shares the keys and values of its beginning, so it costs nothing."""
    ends = set(model.tokenizer.eos_token_ids)
    beams, finished = [Beam(session, 0.0, [])], []
    for _ in range(TOKENS):
        candidates: list[tuple[float, Beam, int]] = []
        for beam in beams:
            logs = log_softmax(beam.session.next_logits())
            for token in np.argpartition(-logs, width)[:width]:
                candidates.append((beam.logprob + float(logs[token]), beam, int(token)))
        candidates.sort(key=lambda candidate: -candidate[0])
        beams = []
        for logprob, parent, token in candidates[:width]:
            beam = Beam(parent.session.fork(), logprob, [*parent.tokens, token])
            if token in ends:
                finished.append(beam)
            else:
                beam.session.feed([token])
                beams.append(beam)
        if not beams or (finished and max(b.logprob for b in finished) >= beams[0].logprob):
            break  # no text can become more probable than it is now
    return max(finished or beams, key=lambda beam: beam.logprob)


def main() -> None:
    stories = {"mix": "stories=1", "documents": 6000, "vocab_size": 400}
    path = sys.argv[1] if len(sys.argv) > 1 else train(FOLDER / "stories", stories)
    model = sterna.Model(path)
    prompt = "Once Mia sat in the"
    ids = model.tokenizer.encode(prompt)
    session = model.session()
    session.feed(ids)  # computed once; everything below continues from here

    print("Locally typical sampling:")
    ends = model.tokenizer.eos_token_ids
    for seed in range(3):
        rng = np.random.default_rng(seed)
        tokens: list[int] = []
        while len(tokens) < TOKENS:
            token = typical(session.next_logits(), rng)
            if token in ends:
                break
            tokens.append(token)
            session.feed([token])
        print(f"  {prompt}{model.tokenizer.decode(tokens)}")
        session.truncate(len(ids))  # back to the end of the prompt

    # The most probable token at each place does not make the most probable text.
    greedy = model.generate(prompt, max_tokens=TOKENS, logprobs=0)
    last = [] if greedy.stop_token is None else [greedy.stop_token]
    logprob = model.score(ids, [*greedy.tokens, *last]).logprob
    print(f"\nThe most probable token each time, log-probability {logprob:.2f}:")
    print(f"  {prompt}{greedy.text}")
    for width in (2, 8):
        best = search(model, session.fork(), width)
        print(f"The most probable text of {width} beams, log-probability {best.logprob:.2f}:")
        print(f"  {prompt}{model.tokenizer.decode(best.tokens)}")


if __name__ == "__main__":
    main()
