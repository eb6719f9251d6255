"""The SDK servers, each behind a tap, and the client processes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .places import Places, base_environment
from .process import Child, StartError
from .switchboard import Switchboard
from .tap import Tap

START_SECONDS_MAX = 30.0
JOB_SECONDS_MAX = 25.0


class Backend:
    """One SDK server. `tap.port` is where proxies (and direct clients) find it."""

    def __init__(self, name: str, child: Child, tap: Tap, port: int) -> None:
        self.name = name
        self.child = child
        self.tap = tap
        self.port = port

    @classmethod
    async def start(cls, name: str, places: Places, switchboard: Switchboard, *, role: str = "server") -> Backend:
        argv, extra = places.program(name, role)
        env = base_environment() | extra | {"E2E_SWITCHBOARD": switchboard.url}
        child = await Child.start(f"{name} {role}", argv, places.log(f"{role}-{name}"), env, pipes=True)
        try:
            port = json.loads(await child.line(START_SECONDS_MAX))["port"]
        except (TimeoutError, ValueError) as error:
            await child.stop()
            raise StartError(f"the {name} {role} did not start: {child.log_tail()}") from error
        tap = Tap("backend", port, switchboard)
        await tap.start()
        return cls(name, child, tap, port)

    async def stop(self) -> None:
        self.tap.stop()
        await self.child.stop()


class ClientWorker:
    """One client process of an SDK; runs jobs one after the other and is replaced if it hangs or dies."""

    def __init__(self, sdk: str, lane: int, places: Places, switchboard: Switchboard) -> None:
        self._sdk = sdk
        self._lane = lane
        self._places = places
        self._switchboard = switchboard
        self._child: Child | None = None

    async def run(self, job: dict[str, str]) -> dict[str, Any]:
        if self._child is None or not self._child.running:
            self._child = await self._start()
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(json.dumps(job).encode() + b"\n")
        try:
            line = await self._child.line(JOB_SECONDS_MAX)
        except TimeoutError:
            await self.stop()
            return {"error": f"no answer from the client process within {JOB_SECONDS_MAX} s"}
        if not line:
            tail = self._child.log_tail()
            await self.stop()
            return {"error": f"the client process ended: {tail}"}
        return json.loads(line)

    async def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()

    async def _start(self) -> Child:
        argv, extra = self._places.program(self._sdk, "client")
        env = base_environment() | extra | {"E2E_SWITCHBOARD": self._switchboard.url}
        log = self._places.log(f"client-{self._sdk}-{self._lane}")
        return await Child.start(f"{self._sdk} client", argv, log, env, pipes=True)


async def start_all(names: list[str], places: Places, switchboard: Switchboard) -> dict[str, Backend]:
    started = await asyncio.gather(*(Backend.start(name, places, switchboard) for name in names))
    return {backend.name: backend for backend in started}
