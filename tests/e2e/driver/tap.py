"""A TCP relay that notes the HTTP exchanges passing through it and forwards every byte at once.

Clients reach everything through one tap and backends are reached through another, so what went over the wire on
either side of a proxy is known without touching an SDK. h11 parses strictly: a proxy that frames badly is found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import h11

from .switchboard import Switchboard

KEY_HEADER = "x-e2e-key"
READ_BYTES = 65536

Headers = dict[str, str]
Saw = Callable[[bytes], Awaitable[None]]


@dataclass
class Exchange:
    """One request and its response as seen on one side of the proxy."""

    method: str
    request_headers: Headers
    request_body: bytearray = field(default_factory=bytearray)
    rpc: str = ""
    status: int = 0
    response_headers: Headers = field(default_factory=dict)
    response_body: bytearray = field(default_factory=bytearray)
    end: str = "open"

    @property
    def key(self) -> str:
        return self.request_headers.get(KEY_HEADER, "")

    @property
    def label(self) -> str:
        return f"{self.method} {self.rpc}".strip()

    def name_rpc(self) -> None:
        with contextlib.suppress(ValueError):
            message = json.loads(self.request_body)
            if isinstance(message, dict):
                self.rpc = str(message.get("method", "response"))


class Tap:
    """Relays 127.0.0.1:`port` to one target. `side`, which is `client` or `backend`, begins the events it records."""

    def __init__(self, side: str, target_port: int, switchboard: Switchboard) -> None:
        self.side = side
        self.port = 0
        self._target_port = target_port
        self._switchboard = switchboard
        self._server: asyncio.Server | None = None
        self._exchanges: dict[str, list[Exchange]] = defaultdict(list)
        self._live: set[_Relay] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for relay in list(self._live):
            relay.abort()

    def take(self, key: str) -> list[Exchange]:
        return self._exchanges.pop(key, [])

    def cut(self, key: str, label: str) -> int:
        """Break the connections that carry the job's unfinished exchange `label`; how many there were."""
        doomed = [relay for relay in self._live if relay.carries(key, label)]
        for relay in doomed:
            relay.abort()
        return len(doomed)

    async def note(self, exchange: Exchange, happening: str) -> None:
        if exchange.key:
            await self._switchboard.record(exchange.key, f"{self.side} {happening} {exchange.label}")

    def begin(self, exchange: Exchange) -> None:
        if exchange.key:
            self._exchanges[exchange.key].append(exchange)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        relay = _Relay(self, writer, up_writer)
        self._live.add(relay)
        try:
            # Cancelled only when the run is over.
            with contextlib.suppress(asyncio.CancelledError):
                await relay.run(reader, up_reader)
        finally:
            relay.abort()
            self._live.discard(relay)


class _Relay:
    """One client connection and the connection made for it."""

    def __init__(self, tap: Tap, down: asyncio.StreamWriter, up: asyncio.StreamWriter) -> None:
        self._tap = tap
        self._down = down
        self._up = up
        self._requests = h11.Connection(h11.SERVER)
        self._responses = h11.Connection(h11.CLIENT)
        self._exchange: Exchange | None = None
        self._readable = True

    def carries(self, key: str, label: str) -> bool:
        return self._exchange is not None and self._exchange.key == key and self._exchange.label == label

    def abort(self) -> None:
        self._down.transport.abort()
        self._up.transport.abort()

    async def run(self, reader: asyncio.StreamReader, up_reader: asyncio.StreamReader) -> None:
        pumps = [
            asyncio.create_task(self._pump(reader, self._up, self._saw_request_bytes)),
            asyncio.create_task(self._pump(up_reader, self._down, self._saw_response_bytes)),
        ]
        # Whichever side ends first ends the other: what a peer that left still had to say has nobody to hear it.
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        requester_left = pumps[0] in done
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in (self._down, self._up):
            writer.close()
            # What was relayed last must still get out before the connection is dropped.
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._exchange is not None:
            await self._finish("requester left" if requester_left else "responder left")

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, saw: Saw) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(READ_BYTES):
                await self._parse(saw, chunk)
                writer.write(chunk)
                await writer.drain()
            await self._parse(saw, b"")

    async def _parse(self, saw: Saw, chunk: bytes) -> None:
        if not self._readable:
            return
        try:
            await saw(chunk)
        except h11.ProtocolError as error:
            # An abandoned exchange is not a framing fault; it is reported as "left" when the connection ends.
            if chunk:
                self._readable = False
                if self._exchange is not None:
                    await self._finish(f"bad HTTP: {error}")

    async def _saw_request_bytes(self, chunk: bytes) -> None:
        self._requests.receive_data(chunk)
        while True:
            event = self._requests.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            assert isinstance(event, h11.Event)
            self._responses.send(event)
            if isinstance(event, h11.Request):
                self._exchange = Exchange(event.method.decode(), _headers(event.headers))
                self._tap.begin(self._exchange)
            elif isinstance(event, h11.Data) and self._exchange is not None:
                self._exchange.request_body += event.data
            elif isinstance(event, h11.EndOfMessage) and self._exchange is not None:
                self._exchange.name_rpc()
                await self._tap.note(self._exchange, "request")

    async def _saw_response_bytes(self, chunk: bytes) -> None:
        self._responses.receive_data(chunk)
        while True:
            event = self._responses.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            assert isinstance(event, h11.Event)
            self._requests.send(event)
            exchange = self._exchange
            if exchange is None:
                raise h11.RemoteProtocolError("bytes that answer no request")
            if isinstance(event, h11.Response):
                exchange.status = event.status_code
                exchange.response_headers = _headers(event.headers)
                await self._tap.note(exchange, "open")
            elif isinstance(event, h11.Data):
                exchange.response_body += event.data
            elif isinstance(event, h11.EndOfMessage):
                await self._finish("complete")
                if self._requests.our_state is h11.DONE and self._requests.their_state is h11.DONE:
                    self._requests.start_next_cycle()
                    self._responses.start_next_cycle()

    async def _finish(self, end: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end = end
            if end == "requester left":
                await self._tap.note(exchange, "gone")


@dataclass(frozen=True)
class SseEvent:
    """One event as a browser would dispatch it, with the fields that were really there."""

    fields: tuple[tuple[str, str], ...]


def parse_sse(body: bytes) -> list[SseEvent]:
    """Complete events only; comments are left out. Lines end at CR, LF or CRLF and nowhere else (not at U+2028)."""
    events: list[SseEvent] = []
    fields: list[tuple[str, str]] = []
    text = body.decode()
    complete = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    for line in re.split(r"\r\n|\r|\n", complete)[:-1]:
        if line == "":
            if fields:
                events.append(SseEvent(tuple(fields)))
            fields = []
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields.append((name, value.removeprefix(" ")))
    return events


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    headers: Headers = {}
    for name, value in pairs:
        key = name.decode().lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
