"""The Python side of the switchboard: record an event, wait for one, cut a connection."""

import asyncio
import json
import os
from typing import Any
from urllib.parse import quote, urlsplit

_URL = urlsplit(os.environ["E2E_SWITCHBOARD"])


async def record(key: str, event: str) -> None:
    await _ask("record", key=key, event=event)


async def wait(key: str, event: str, count: int = 1, seconds: float = 10.0) -> None:
    """Raises if the event was not recorded `count` times within `seconds`."""
    answer = await _ask("wait", key=key, event=event, count=str(count), seconds=str(seconds))
    if not answer["seen"]:
        raise TimeoutError(f"{event!r} did not happen {count} time(s) within {seconds} s")


async def cut(key: str, label: str) -> None:
    """Break the connection that carries the exchange `label`, as a failing network would."""
    answer = await _ask("cut", key=key, label=label)
    if not answer["cut"]:
        raise RuntimeError(f"no open exchange {label!r} to cut")


async def _ask(verb: str, **query: str) -> dict[str, Any]:
    # By hand, because the two SDKs bring different HTTP clients and urllib would block the loop.
    target = f"/{verb}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    reader, writer = await asyncio.open_connection(_URL.hostname, _URL.port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {_URL.netloc}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])
