"""Search by meaning: texts become vectors, and near vectors mean similar things.

    python search_with_embeddings.py [MODEL]

Without a model, that of train_and_talk.py is used, and trained first if need be. For texts of your
own take a model that was trained to embed, such as microsoft/bitnet-embedding-0.6b: its name works
in place of a file.
"""

import sys

import numpy as np

import sterna
from train_and_talk import pairs, train


def main() -> None:
    model = sterna.Model(sys.argv[1] if len(sys.argv) > 1 else train())
    # The texts to search in have answers, which the model does not see here.
    found, queries = pairs()
    texts, answers = zip(*found, strict=True)

    def vectors(questions: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """One row of length one per question, so a product is the cosine of two of them."""
        asked = [[{"role": "user", "content": question}] for question in questions]
        return model.embed([model.apply_chat_template(messages) for messages in asked])

    rows = vectors(list(texts))  # (texts, hidden_size)
    print(f"{len(rows)} texts became vectors of {rows.shape[1]} numbers")

    for query, _ in queries[::12]:
        print(f"\nnearest to: {query}")
        similarity = rows @ vectors([query])[0]
        for index in similarity.argsort()[::-1][:3]:
            print(f"  {similarity[index]:.3f}  {texts[index]}")

    # How good is it? The nearest text should have the same answer. No query is among the texts.
    nearest = (vectors([query for query, _ in queries]) @ rows.T).argmax(axis=1)
    same = [answers[index] == answer for index, (_, answer) in zip(nearest, queries, strict=True)]
    chance = np.mean([answer == other for other in answers for _, answer in queries])
    print(f"\nof {len(queries)} questions {np.mean(same):.0%} find one with the same answer; "
          f"by chance {chance:.0%}")


if __name__ == "__main__":
    main()
