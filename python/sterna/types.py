"""Types of options and of results, for annotations.

A result is the same object that the command line prints with `--json`, as a dict.
"""

from __future__ import annotations

import os
from typing import Any, List, Mapping, Optional, Sequence, TypedDict, Union

__all__ = [
    "ChatOptions",
    "CheckResult",
    "Comparison",
    "ConversionReport",
    "EndOfText",
    "Examination",
    "Facts",
    "GenerateOptions",
    "LayerFacts",
    "MatrixComparison",
    "MatrixFacts",
    "MatrixReport",
    "MemoryFacts",
    "ServeOptions",
    "TableComparison",
    "TableReport",
    "TrainingMetrics",
    "TrainingOutcome",
]

Schema = Union[Mapping[str, Any], bool, str]


class GenerateOptions(TypedDict, total=False):
    """Options of `Model.generate`, which explains them."""

    max_tokens: Optional[int]
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: Optional[float]
    frequency_penalty: Optional[float]
    presence_penalty: Optional[float]
    seed: Optional[int]
    stop: Union[str, Sequence[str], None]
    stop_token_ids: Optional[Sequence[int]]
    include_stop_str_in_output: bool
    ignore_eos: bool
    logit_bias: Optional[Mapping[int, float]]
    logprobs: Optional[int]
    prompt_logprobs: Optional[int]
    schema: Optional[Schema]
    regex: Optional[str]
    grammar: Optional[str]
    choice: Optional[Sequence[str]]
    prediction: Optional[str]
    cache_prompt: bool


class ChatOptions(GenerateOptions, total=False):
    """Options of `Model.chat`, which explains them."""

    add_generation_prompt: Optional[bool]
    continue_final_message: Optional[bool]
    chat_template_kwargs: Optional[Mapping[str, Any]]
    tools: Optional[Sequence[Mapping[str, Any]]]
    tool_choice: Optional[Union[str, Mapping[str, Any]]]
    parallel_tool_calls: Optional[bool]


class TableReport(TypedDict):
    """A table of a conversion: the embedding, the head, a dense linear layer."""

    name: str
    source_dtype: str
    dtype: str
    mean_error: float
    max_error: float


class MatrixReport(TypedDict):
    """A ternary linear layer of a conversion. Weight = trit x scale, which is a mean of several."""

    name: str
    rows: int
    columns: int
    minus: int
    zero: int
    plus: int
    scale: float
    scales: int
    stored_scale: str
    rounded: int


class ConversionReport(TypedDict):
    """What a conversion wrote and compared. Every `differ` is 0: a difference is an error."""

    packing: str
    activations: Optional[str]
    weights: int
    differ: int
    scales: int
    scales_differ: int
    values: int
    values_differ: int
    scale_rounding: float
    bytes_in: int
    bytes_out: int
    sha256: str
    tables: List[TableReport]
    matrices: List[MatrixReport]
    dense: List[TableReport]
    warnings: List[str]


class MatrixComparison(TypedDict):
    """A ternary linear layer of two models. Counts of trits are those of the first."""

    name: str
    rows: int
    columns: int
    differ: int
    minus: int
    zero: int
    plus: int
    scales: List[float]


class TableComparison(TypedDict):
    """A table of two models."""

    name: str
    dtypes: List[str]
    differ: int
    max_error: float


class Comparison(TypedDict):
    """What of two models was compared, and what differs."""

    equal: bool
    weights: int
    differ: int
    scales: int
    scales_differ: int
    values: int
    values_differ: int
    activations: List[str]
    config_differs: List[str]
    first: Optional[str]
    matrices: List[MatrixComparison]
    dense: List[TableComparison]
    tables: List[TableComparison]


class CheckResult(TypedDict):
    """One check of a model. The verdict is ok, suspect, broken or not_applicable."""

    check: str
    verdict: str
    why: str
    fix: Optional[str]


class Examination(TypedDict):
    """All checks of a model."""

    path: str
    family: Optional[str]
    broken: int
    suspect: int
    checks: List[CheckResult]
    warnings: List[str]


class EndOfText(TypedDict):
    """A token that ends a text."""

    id: int
    token: Optional[str]


class LayerFacts(TypedDict):
    """The trits of a decoder layer."""

    layer: int
    zeros: float
    least_scale: float
    largest_scale: float


class MatrixFacts(TypedDict):
    """The trits of a matrix."""

    name: str
    rows: int
    columns: int
    scale: float
    scales: int
    minus: int
    zero: int
    plus: int
    zero_rows: int


class MemoryFacts(TypedDict):
    """Bytes that generation needs: of the weights, and of the cache by its type."""

    context: int
    weights: int
    cache: Mapping[str, int]


class Facts(TypedDict):
    """What is in a model. None: the model does not have it, or it was not counted."""

    path: str
    bytes: int
    family: str
    architecture: str
    parameters: int
    ternary_weights: int
    linear_weights: int
    packing: str
    bits_per_ternary_weight: float
    bits_per_head_weight: float
    activations: str
    bits_per_parameter: float
    embedding: str
    head: str
    tied: bool
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    sliding_window: Optional[int]
    windowed_layers: int
    norms_before_linear_layers: bool
    hidden_act: str
    files: List[str]
    tokenizer: Optional[Mapping[str, Any]]
    chat_template: Optional[Mapping[str, Optional[str]]]
    eos: Optional[List[EndOfText]]
    linear_types: Optional[Mapping[str, int]]
    zeros: Optional[float]
    layers: Optional[List[LayerFacts]]
    matrices: Optional[List[MatrixFacts]]
    memory: Optional[MemoryFacts]
    remarks: List[str]


class TrainingMetrics(TypedDict, total=False):
    """What `Trainer.run` tells its callback, as in metrics.jsonl.

    After a step: loss, gradient_norm, learning_rate, tokens, skipped. After an evaluation:
    held_out_loss, bits_per_byte, sample, layers. Losses are in nats per token.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    skipped: bool
    held_out_loss: float
    bits_per_byte: float
    sample: Optional[List[str]]
    layers: List[Mapping[str, Any]]


class TrainingOutcome(TypedDict):
    """The result of `Trainer.run`."""

    step: int
    held_out_loss: Optional[float]
    out: str
    model: str
    stopped: bool


class ServeOptions(TypedDict, total=False):
    """Options of `serve`: the keys of the file of `sterna serve --config`, with _ for -."""

    names: Sequence[str]
    any_model: bool
    host: str
    port: int
    strict: bool
    no_metrics: bool
    log_requests: Union[str, "os.PathLike[str]"]
    drain: int
    api_key_file: Union[str, "os.PathLike[str]"]
    api_key_env: str
    no_key: bool
    allow_host: Sequence[str]
    cors_origin: Sequence[str]
    context: int
    kv_memory: str
    parallel: int
    step: int
    queue: int
    queue_tokens: int
    queue_timeout: int
    timeout: int
    key_weights: Sequence[float]
    no_lookup: bool
    draft: Union[str, "os.PathLike[str]"]
    threads: int
    kernels: str
    kv: str
    memory: str
