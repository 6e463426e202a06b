"""Search by meaning: texts become vectors, and near vectors mean similar things.

    python search_with_embeddings.py [MODEL]

Without a model, that of train_and_talk.py is used, and trained first if need be. For texts of your
own take a model that was trained to embed, such as microsoft/bitnet-embedding-0.6b: its name works
in place of a file.
"""

import itertools
import random
import sys

import numpy as np

import sterna
from train_and_talk import train

NAMES = ["Mia", "Tom", "Zoe", "Ben", "Ivy", "Sam"]
PLACES = ["barn", "park", "shop", "cave", "zoo", "mill"]
COLOURS = ["red", "gold", "black", "brown", "teal", "pink"]


def documents() -> list[tuple[str, str]]:
    """Stories that end in a question, and the answers, which are not embedded."""
    rng = random.Random(3)
    found = []
    for name, place, colour in itertools.product(NAMES, PLACES, COLOURS):
        story = f"Once {name} sat in the {place}. {name} found a {colour} key."
        if rng.random() < 0.5:
            found.append((f"{story} Where is {name}?", f"In the {place}."))
        else:
            found.append((f"{story} What colour is the key?", f"It is {colour}."))
    return found


def main() -> None:
    model = sterna.Model(sys.argv[1] if len(sys.argv) > 1 else train())
    found = documents()
    texts, answers = zip(*found, strict=True)
    # One row per text, all of length one: a product is the cosine of the angle between two texts.
    vectors = model.embed(texts)  # (texts, hidden_size)
    print(f"{len(texts)} texts became vectors of {vectors.shape[1]} numbers\n")

    for query in (
        "Once Ann ran to the cave. Where is Ann?",
        "Once Dan was in the hall. Dan bought a gold ring. What colour is the ring?",
    ):
        print(f"nearest to: {query}")
        similarity = vectors @ model.embed(query)
        for index in similarity.argsort()[::-1][:3]:
            print(f"  {similarity[index]:.3f}  {texts[index]}")

    # How good is it? The neighbour of a question should have the same answer.
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(axis=1)
    hits = np.mean([answers[a] == answers[b] for a, b in enumerate(nearest)])
    chance = np.mean([a == b for a, b in itertools.combinations(answers, 2)])
    print(f"\nthe nearest text has the same answer in {hits:.0%} of cases, by chance {chance:.0%}")


if __name__ == "__main__":
    main()
