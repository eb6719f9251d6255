"""What one run of a scenario left behind, and the part of it that must be the same on every way."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .tap import Exchange, Headers, SseEvent, parse_sse

_SHOWN_CHARS_MAX = 400
# Nothing as big as this holds anything that varies, and looking for it would take longer than the scenario.
_CLEANED_BYTES_MAX = 65536
_RESPONSE_HEADERS = ("content-type", "cache-control", "allow", "www-authenticate", "x-accel-buffering")
_REQUEST_HEADERS = ("accept", "content-type", "mcp-protocol-version", "mcp-method", "mcp-name", "x-e2e-trace")
_PRESENCE_ONLY = ("mcp-session-id", "last-event-id")

# What differs between any two runs and says nothing about the proxy.
_NOISE = (
    (re.compile(r"127\.0\.0\.1:\d+(/mcp/[\w-]+|/mcp|/json)?"), "<address>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r'("requestState":\s*")[^"]+'), r"\1<state>"),
    (re.compile(r"\blisten-\d+"), "<listen id>"),
)


def clean(text: str) -> str:
    for pattern, replacement in _NOISE:
        text = pattern.sub(replacement, text)
    return text


@dataclass
class Transcript:
    """`seen` is the client's own account; the taps give the exchanges before and behind the proxy."""

    seen: Any
    client_side: list[Exchange] = field(default_factory=list)
    backend_side: list[Exchange] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def exchanges(self, label: str) -> list[Exchange]:
        return [exchange for exchange in self.client_side if label_of(exchange) == label]

    def backend_requests(self, label: str) -> list[Exchange]:
        return [exchange for exchange in self.backend_side if label_of(exchange) == label]

    def comparable(self, left_out: Iterable[str]) -> dict[str, Any]:
        """The exchanges of a session are not ordered among each other where they overlap, so they are sorted."""
        omitted = frozenset(left_out)
        wire = [_response_view(exchange) for exchange in self.client_side if label_of(exchange) not in omitted]
        arrived = [_request_view(exchange) for exchange in self.backend_side if label_of(exchange) not in omitted]
        return {
            "seen": json.loads(clean(json.dumps(self.seen))),
            "wire": sorted(wire, key=json.dumps),
            "arrived": sorted(arrived, key=json.dumps),
        }


def label_of(exchange: Exchange) -> str:
    """`POST tools/call`, `GET`, `GET resuming`, `DELETE`."""
    resuming = exchange.method == "GET" and "last-event-id" in exchange.request_headers
    return f"{exchange.label} resuming" if resuming else exchange.label


def events_of(exchange: Exchange) -> list[SseEvent]:
    return parse_sse(bytes(exchange.response_body))


def messages_of(exchange: Exchange) -> list[dict[str, Any]]:
    """The JSON-RPC messages of a response, whichever way it was sent."""
    if exchange.response_headers.get("content-type", "").startswith("text/event-stream"):
        data = (dict(event.fields).get("data", "") for event in events_of(exchange))
        return [json.loads(text) for text in data if text]
    return [json.loads(exchange.response_body)] if exchange.response_body else []


def damaged_bytes(transcript: Transcript, label: str) -> list[str]:
    """How bodies of `label` differ between the two sides of the proxy; a relay changes none."""
    faults: list[str] = []
    behind = {bytes(exchange.request_body): exchange for exchange in transcript.backend_requests(label)}
    before = transcript.exchanges(label)
    if len(before) != len(transcript.backend_requests(label)):
        faults.append(f"{len(before)} requests {label} became {len(transcript.backend_requests(label))}")
    for exchange in before:
        twin = behind.get(bytes(exchange.request_body))
        if twin is None:
            faults.append(f"a request body of {label} did not arrive as it was sent: {exchange.request_body[:300]!r}")
        # A client may leave after the last event it needs, so it may have less than the backend sent.
        elif not twin.response_body.startswith(exchange.response_body) or (
            exchange.end == "complete" and len(twin.response_body) != len(exchange.response_body)
        ):
            faults.append(
                f"a response body of {label} was changed: {len(twin.response_body)} bytes "
                f"{_shown(bytes(twin.response_body))} became {len(exchange.response_body)} bytes "
                f"{_shown(bytes(exchange.response_body))}"
            )
    return faults


def _response_view(exchange: Exchange) -> dict[str, Any]:
    headers = _header_view(exchange.response_headers, _RESPONSE_HEADERS)
    if "mcp-method" in exchange.request_headers:
        # A legacy server may mint a session for a modern probe it refuses. The modern era has none, so a
        # proxy that knows the eras drops the id (P-002), and no client looks at it.
        headers.pop("mcp-session-id", None)
    streamed = exchange.response_headers.get("content-type", "").startswith("text/event-stream")
    body: Any = _event_views(exchange) if streamed else _shown(bytes(exchange.response_body))
    return {
        "request": label_of(exchange),
        "status": exchange.status,
        "headers": headers,
        "body": body,
    }


def _request_view(exchange: Exchange) -> dict[str, Any]:
    names = (*_REQUEST_HEADERS, *(name for name in exchange.request_headers if name.startswith("mcp-param-")))
    return {
        "request": label_of(exchange),
        "headers": _header_view(exchange.request_headers, names),
        "body": _shown(bytes(exchange.request_body)),
    }


def _header_view(headers: Headers, names: Iterable[str]) -> dict[str, str]:
    shown = {name: headers[name] for name in sorted(names) if name in headers}
    return shown | {name: "<present>" for name in _PRESENCE_ONLY if name in headers}


def _event_views(exchange: Exchange) -> list[dict[str, str]]:
    """Event ids are the server's business: which they are varies, that they are there and distinct does not."""
    ids: dict[str, str] = {}
    views = []
    for event in events_of(exchange):
        view = {}
        for name, value in event.fields:
            if name == "id":
                value = ids.setdefault(value, f"<id {len(ids) + 1}>")
            view[name] = _shown(value.encode())
        views.append(view)
    return views


def _shown(body: bytes) -> str:
    if len(body) <= _CLEANED_BYTES_MAX:
        text = clean(body.decode(errors="backslashreplace"))
        if len(text) <= _SHOWN_CHARS_MAX:
            return text
        body = text.encode()
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}"
