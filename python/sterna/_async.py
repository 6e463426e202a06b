"""Generations for asyncio. The thread of the engine wakes the event loop; no thread waits."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type

if TYPE_CHECKING:
    from ._sterna import Completion, Stream

__all__ = ["AsyncStream", "complete"]


class AsyncStream:
    """The pieces of a text for `async for`; see Stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def _wait(self) -> None:
        """Waits until there is something to read."""
        import asyncio  # it takes as long to import as all of this package

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def arrived() -> None:
            if not future.done():
                future.set_result(None)

        self._stream._wake_with(partial(loop.call_soon_threadsafe, arrived))
        await future

    def __aiter__(self) -> AsyncStream:
        """The stream itself."""
        return self

    async def __anext__(self) -> str:
        """The next piece."""
        while True:
            piece = self._stream._poll()
            if piece is not None:
                return piece
            if self._stream._is_over():
                raise StopAsyncIteration
            await self._wait()

    async def result(self) -> Completion:
        """Waits for the end and returns the whole text with its counts."""
        async for _ in self:
            pass
        return self._stream.result()

    def close(self) -> None:
        """Ends the generation."""
        self._stream.close()

    async def __aenter__(self) -> AsyncStream:
        """The stream itself."""
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Closes the stream, unless it has ended."""
        self.close()


async def complete(stream: Stream) -> Completion:
    """The whole text of a stream. If the task is cancelled, the work ends."""
    async with AsyncStream(stream) as pieces:
        return await pieces.result()
