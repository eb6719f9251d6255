"""An event store in memory, so that broken streams can be resumed. Serves both SDK generations."""

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage


class MemoryEvents(EventStore):
    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        seen = int(last_event_id)
        if not 0 < seen <= len(self._events):
            return None
        stream_id = self._events[seen - 1][0]
        for index, (owner, message) in enumerate(self._events[seen:], start=seen + 1):
            # A priming event carries no message and is never replayed.
            if owner == stream_id and message is not None:
                await send_callback(EventMessage(message, str(index)))
        return stream_id
