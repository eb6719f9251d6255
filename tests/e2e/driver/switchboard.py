"""One place where servers, clients and taps record what happened and wait for it.

Scenarios never sleep: a tool that must not go on before its client has seen something waits for the event the client
records. Events belong to a job's key, so concurrent jobs do not meet.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

WAIT_SECONDS_MAX = 20.0


class Switchboard:
    """`/record?key&event`, `/wait?key&event&count&seconds`, `/cut?key&label`, over HTTP on loopback."""

    def __init__(self) -> None:
        self._events: dict[str, list[str]] = defaultdict(list)
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.cut: Callable[[str, str], int] = lambda key, label: 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def record(self, key: str, event: str) -> None:
        async with self._changed:
            self._events[key].append(event)
            self._changed.notify_all()

    async def wait(self, key: str, event: str, count: int = 1, seconds: float = 10.0) -> bool:
        """True as soon as `event` was recorded `count` times, False if that takes longer than `seconds`."""

        def seen() -> bool:
            return self._events[key].count(event) >= count

        async def until_seen() -> None:
            async with self._changed:
                await self._changed.wait_for(seen)

        try:
            await asyncio.wait_for(until_seen(), min(seconds, WAIT_SECONDS_MAX))
        except TimeoutError:
            return False
        return True

    def take(self, key: str) -> list[str]:
        """All events of a job, which is over."""
        return self._events.pop(key, [])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            body = json.dumps(await self._answer(target)).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The asker left, or the run is over while somebody still waits: nobody needs an answer.
            pass
        finally:
            writer.close()

    async def _answer(self, target: str) -> dict[str, object]:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        key, event = query["key"], query.get("event", "")
        if url.path == "/record":
            await self.record(key, event)
            return {"recorded": event}
        if url.path == "/wait":
            seconds = float(query.get("seconds", "10"))
            return {"seen": await self.wait(key, event, int(query.get("count", "1")), seconds)}
        if url.path == "/cut":
            return {"cut": self.cut(key, query["label"])}
        raise ValueError(f"the switchboard has no {url.path}")
