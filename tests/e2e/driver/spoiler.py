"""Relays that do one kind of damage each. The scenario named with it must fail, or it proves nothing of a proxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

READ_BYTES = 65536
LAST_CHUNK = b"0\r\n\r\n"

# A damage gets what is yet to be forwarded and gives (what to forward now, what to keep for later).
Damage = Callable[[bytes], tuple[bytes, bytes]]


def _replace(old: bytes, new: bytes) -> Damage:
    return lambda waiting: (waiting.replace(old, new), b"")


def _hold_events(waiting: bytes) -> tuple[bytes, bytes]:
    """As a proxy that buffers: an event stream is forwarded when it is complete."""
    streaming = b"text/event-stream" in waiting and not waiting.endswith(LAST_CHUNK)
    return (b"", waiting) if streaming else (waiting, b"")


def _nothing(waiting: bytes) -> tuple[bytes, bytes]:
    return waiting, b""


@dataclass(frozen=True)
class Spoiling:
    name: str
    scenario: str
    responses: Damage = _nothing
    requests: Damage = _nothing
    keeps_leavers: bool = False


# Replacements keep the length, so that the framing stays right and only the content is wrong.
SPOILINGS = (
    Spoiling("events-held-back", "progress", responses=_hold_events),
    Spoiling("retry-changed", "priming", responses=_replace(b"retry: 50", b"retry: 99")),
    Spoiling("separator-changed", "separators", responses=_replace("\u2028".encode(), b"   ")),
    Spoiling("status-changed", "delete-session", responses=_replace(b" 404 ", b" 400 ")),
    Spoiling("result-changed", "big-result", responses=_replace(b"brown", b"brawn")),
    Spoiling("resumption-lost", "resume-closed", requests=_replace(b"ast-event-id", b"ast-event-xx")),
    Spoiling("cancellation-lost", "cancel", requests=_replace(b"/cancelled", b"/cancellex")),
    Spoiling("leave-not-passed-on", "leave", keeps_leavers=True),
)


class Spoiler:
    """A running relay with its damage, in the place of a proxy."""

    def __init__(self, spoiling: Spoiling, target_port: int) -> None:
        self._spoiling = spoiling
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        # The loop refers to tasks weakly, and one that outlives its client's connection has nobody else.
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for relay in self._relays:
            relay.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        with contextlib.suppress(asyncio.CancelledError):
            requests = asyncio.create_task(_forward(reader, up_writer, self._spoiling.requests))
            responses = asyncio.create_task(_forward(up_reader, writer, self._spoiling.responses))
            until = asyncio.ALL_COMPLETED if self._spoiling.keeps_leavers else asyncio.FIRST_COMPLETED
            await asyncio.wait([requests, responses], return_when=until)
            requests.cancel()
            responses.cancel()
        for end in (writer, up_writer):
            end.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, damage: Damage) -> None:
    waiting = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(READ_BYTES):
            now, waiting = damage(waiting + chunk)
            writer.write(now)
            await writer.drain()
