"""Models of this package for lm-evaluation-harness, in the same process.

    python -m sterna.lm_eval run --model sterna --model_args pretrained=model.sterna --tasks piqa

is the command `lm-eval` with one more model. In a program:

    results = lm_eval.simple_evaluate(model=sterna.lm_eval.LM("model.sterna"), tasks=["piqa"])

Log-likelihoods are those of `sterna validate` and of `sterna serve`, digit for digit. Requests are
computed together and beginnings that they share once; neither changes a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._sterna import Model

try:
    import lm_eval.models  # the harness registers its own models only where it finds none
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ModuleNotFoundError as error:
    if error.name not in ("lm_eval", "lm_eval.models"):
        raise
    message = "sterna.lm_eval needs lm-evaluation-harness: pip install lm_eval"
    raise ModuleNotFoundError(message, name="lm_eval") from None

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

__all__ = ["LM", "main"]

# A key for the harness' cache, the tokens before, and those that are scored.
_Request = tuple[Any, list[int], list[int]]

# What a task may ask of a generation, besides `until`, `max_gen_toks` and `do_sample`.
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}


@register_model("sterna")
class LM(TemplateLM):
    """A model for lm-evaluation-harness.

    pretrained: what `sterna.Model` opens, or a Model.
    batch_size: requests that are computed together, or `auto`. It changes no result.
    max_length: most tokens of a context; by default as many as the model takes.
    max_gen_toks: tokens that are generated at most where the task does not say.
    device: has no effect; the command names a GPU by default, and models run on the CPU.
    seed: of generations whose task asks for sampling; the next request has the next seed.
    Other options are those of `sterna.Model`.
    """

    def __init__(
        self,
        pretrained: str | os.PathLike[str] | Model,
        *,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(pretrained, Model):
            if options:
                names = ", ".join(options)
                raise TypeError(f"the model is open; give {names} to sterna.Model")
            self.model = pretrained
        else:
            self.model = Model(pretrained, **options)
        is_auto = isinstance(batch_size, str) and batch_size.startswith("auto")
        self.batch_size = max_batch_size or 32 if is_auto else int(batch_size)
        if self.batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        self.max_length = self.model.context if max_length is None else int(max_length)
        if not 1 <= self.max_length <= self.model.context:
            most = self.model.context
            raise ValueError(f"max_length {max_length}: expected 1 to {most}, the model's context")
        self.max_gen_toks = int(max_gen_toks)
        self.seed = int(seed)
        # The token before a text, and how a text that begins with it writes it.
        self._prefix = self.model.prefix_token_id
        name = None if self._prefix is None else self.model.tokenizer.id_to_token(self._prefix)
        self._prefix_text = name

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.model.tokenizer.eos_token_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that nothing precedes."""
        if self._prefix is None:
            raise ValueError("the model has no token that begins or ends texts")
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        """Names the cache of requests: model, type of the cache and arithmetic."""
        return self.model.fingerprint.replace("/", "_")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids. By default special tokens are added unless the text begins with one."""
        if add_special_tokens is None:
            begins = self._prefix_text is not None and string.startswith(self._prefix_text)
            add_special_tokens = not begins
        return self.model.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the model's template, which the harness keeps with the results."""
        if isinstance(chat_template, str):
            raise ValueError(f"chat template {chat_template}: the model has one, without a name")
        return self.model.chat_template if chat_template else None

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation. Without a prompt for an answer, its last message goes on."""
        return self.model.apply_chat_template(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def get_model_info(self) -> dict[str, Any]:
        """What the harness keeps with the results."""
        model = self.model
        return {
            "model_path": model.path,
            "model_fingerprint": model.fingerprint,
            "model_max_length": self.max_length,
        }

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of each text: every token once, after the prefix token or the tokens
        before it, as many as `max_length` allows."""
        windows: list[_Request] = []
        counts = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            of_text = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            windows += ((None, *make_disjoint_window(window)) for window in of_text)
            counts.append(len(windows))
        scores = [score for score, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        sums = []
        for request, start, end in zip(requests, [0, *counts], counts):
            sums.append(sum(scores[start:end], 0.0))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, sums[-1])
        return sums

    def _loglikelihood_tokens(
        self, requests: Sequence[_Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of tokens after others, and whether each is the most probable one."""
        pairs = [self._fitted(context, scored) for _, context, scored in requests]
        # Requests with the same beginning follow each other, so the cache holds it.
        order = sorted(range(len(pairs)), key=lambda index: pairs[index])
        results = [(0.0, False)] * len(pairs)
        for batch in self._batches(order, "loglikelihood", disable_tqdm):
            scores = self.model.score_batch([pairs[index] for index in batch])
            for index, score in zip(batch, scores):
                results[index] = (score.logprob, score.is_greedy)
                if requests[index][0] is not None:
                    key = requests[index][0]
                    self.cache_hook.add_partial("loglikelihood", key, results[index])
        return results

    def _fitted(self, context: list[int], scored: list[int]) -> tuple[list[int], list[int]]:
        """Both, without what does not fit on the left. The last token is only predicted."""
        if not context:
            raise ValueError("the first token of a text has no probability: the context is empty")
        if not 1 <= len(scored) <= self.max_length:
            found = f"a continuation of {len(scored)} tokens"
            raise ValueError(f"{found}: expected 1 to {self.max_length}, the longest context")
        return context[-(self.max_length + 1 - len(scored)) :], scored

    def generate_until(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[str]:
        """Texts that the model writes, each until a stop text, its own end or `max_gen_toks`."""
        results = [""] * len(requests)
        # The most probable tokens of prompts with the same settings are computed together.
        groups: dict[str, list[int]] = {}
        settings = [self._settings(request.args[1]) for request in requests]
        for index, options in enumerate(settings):
            if options["temperature"]:
                options["seed"] = self.seed + index
            groups.setdefault(repr(sorted(options.items())), []).append(index)
        order = [index for group in groups.values() for index in group]
        for batch in self._batches(order, "generate_until", disable_tqdm, groups.values()):
            options = settings[batch[0]]
            room = self.max_length - options["max_tokens"]
            prompts = [self.tok_encode(requests[index].args[0])[-room:] for index in batch]
            answers = self.model.generate_batch(prompts, **options)
            for index, answer in zip(batch, answers):
                results[index] = answer.text
                self.cache_hook.add_partial("generate_until", requests[index].args, answer.text)
        return results

    def _settings(self, of_task: dict[str, Any]) -> dict[str, Any]:
        """The options of `Model.generate` for what a task asks."""
        asked = dict(normalize_gen_kwargs(of_task, self.max_gen_toks))
        options = {"max_tokens": asked.pop("max_gen_toks")}
        options["stop"] = [text for text in asked.pop("until") if text]
        if not 0 < options["max_tokens"] < self.max_length:
            room = f"expected 1 to {self.max_length - 1}, with room for a prompt"
            raise ValueError(f"max_gen_toks {options['max_tokens']}: {room}")
        is_sampled = asked.pop("do_sample")
        if unknown := asked.keys() - _SAMPLING:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"the task asks for {names} in generations, which Sterna has not")
        return options | {"temperature": 0.0} | (asked if is_sampled else {})

    def _batches(
        self,
        order: Sequence[int],
        name: str,
        disable_tqdm: bool,
        groups: Iterable[Sequence[int]] | None = None,
    ) -> Iterator[Sequence[int]]:
        """Parts of a group, with a bar that shows what is done."""
        with tqdm(total=len(order), desc=name, disable=disable_tqdm) as bar:
            for group in [order] if groups is None else groups:
                for start in range(0, len(group), self.batch_size):
                    batch = group[start : start + self.batch_size]
                    yield batch
                    bar.update(len(batch))


def main() -> None:
    """The command `lm-eval`, which knows the model `sterna` too."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
