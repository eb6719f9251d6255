"""Child processes: started with a log file, ended by pid, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

STOP_SECONDS_MAX = 5.0


class StartError(Exception):
    """A process that was needed did not come up; the message says why."""


def _die_with_parent() -> None:
    # So that a killed driver leaves no server behind.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process; stderr (and stdout unless it is read) goes to `log`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls, name: str, argv: Sequence[str | Path], log: Path, env: Mapping[str, str], *, pipes: bool = False
    ) -> Child:
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *map(str, argv),
                env=dict(env),
                stdin=asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipes else sink,
                stderr=sink,
                limit=64 * 1024 * 1024,
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log)

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None
        return await asyncio.wait_for(self.process.stdout.readline(), seconds)

    async def ended(self, seconds: float) -> bool:
        """True if the process ends by itself in time; otherwise it is stopped."""
        try:
            await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            await self.stop()
            return False
        return True

    async def stop(self) -> None:
        """TERM, and KILL if that is not obeyed in time."""
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def log_tail(self, chars: int = 2000) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-chars:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until_connectable(child: Child, port: int, seconds: float) -> None:
    """Returns when the port accepts; raises at once if the process ends before."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        if not child.running:
            raise StartError(f"{child.name} ended with {child.process.returncode}: {child.log_tail()}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise StartError(f"{child.name} did not listen on {port} within {seconds} s: {child.log_tail()}")
