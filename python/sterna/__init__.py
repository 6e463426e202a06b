"""Ternary language models on ordinary CPUs: run, convert, train, serve.

    >>> import sterna
    >>> model = sterna.Model("model.sterna")
    >>> completion = model.generate("Once", max_tokens=8)
    >>> completion.usage.completion_tokens
    8

The same text comes from `sterna generate model.sterna Once -n 8`: the module and the command line
are one program, and this package installs both.
"""

from ._async import AsyncStream
from ._sterna import (
    ClosedError,
    Completion,
    ConstraintError,
    ContextError,
    Error,
    FileError,
    Model,
    ModelError,
    Score,
    Server,
    Session,
    Stream,
    TokenLogprob,
    Tokenizer,
    ToolCall,
    Trainer,
    Usage,
    UsageError,
    __version__,
    convert,
    doctor,
    inspect,
    serve,
    verify,
)

__all__ = [
    "AsyncStream",
    "ClosedError",
    "Completion",
    "ConstraintError",
    "ContextError",
    "Error",
    "FileError",
    "Model",
    "ModelError",
    "Score",
    "Server",
    "Session",
    "Stream",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "Trainer",
    "Usage",
    "UsageError",
    "__version__",
    "convert",
    "doctor",
    "inspect",
    "serve",
    "verify",
]
