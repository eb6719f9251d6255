"""An event store in memory, so that broken streams can be resumed. Serves both SDK generations."""

import asyncio
from collections import defaultdict
from contextvars import ContextVar

from mcp.server.streamable_http import GET_STREAM_KEY, EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCError, JSONRPCMessage, JSONRPCResponse

ANSWER_SECONDS_MAX = 10

# The job on whose behalf a task runs; a session's tasks inherit it from the request that began the session. The SDK
# names a stream after its request's id, and those are the same in every session.
job: ContextVar[str] = ContextVar("job", default="")

Owner = tuple[str, str]


class MemoryEvents(EventStore):
    def __init__(self) -> None:
        self._events: list[tuple[Owner, JSONRPCMessage | None]] = []
        self._answered: dict[Owner, asyncio.Event] = defaultdict(asyncio.Event)

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        owner = (job.get(), stream_id)
        self._events.append((owner, message))
        if isinstance(getattr(message, "root", message), JSONRPCResponse | JSONRPCError):
            self._answered[owner].set()
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        seen = int(last_event_id)
        if not 0 < seen <= len(self._events):
            return None
        owner = self._events[seen - 1][0]
        if owner[1] != GET_STREAM_KEY:
            # The SDK follows a resumed stream only if it has already noticed that the old connection is gone, and even
            # then loses what is stored while it replays. With the answer stored nothing is left to follow.
            await asyncio.wait_for(self._answered[owner].wait(), ANSWER_SECONDS_MAX)
        for index, (each, message) in enumerate(self._events[seen:], start=seen + 1):
            # A priming event carries no message and is never replayed.
            if each == owner and message is not None:
                await send_callback(EventMessage(message, str(index)))
        return owner[1]
