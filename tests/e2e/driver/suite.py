"""Starts everything, runs every task on every way, compares, reports."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import conformance, table
from .backends import Backend, ClientWorker, start_all
from .places import SDKS, Places
from .process import StartError
from .proxies import Endpoint, Proxy, ringway_shapes, start_direct, start_nginx, start_ringway
from .scenarios import ANSWER, CALL, Task, all_tasks, left_out_of
from .spoiler import SPOILINGS, Spoiler, Spoiling
from .switchboard import Switchboard
from .tap import Tap
from .transcript import Transcript, damaged_bytes

SUITE_SECONDS_MAX = 1200
DIFF_LINES_MAX = 40
SPOILED_AT_ONCE = 3
# Only names the log file of the client processes that meet a spoiler.
SPOILED_LANE = 99


@dataclass(frozen=True)
class Options:
    only: str
    proxy: str
    ringway: Path | None


@dataclass(frozen=True)
class Way:
    """How clients reach the backend in one run: `tap` is what they connect to."""

    name: str
    tap: Tap
    url: str


class Report:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.scenarios = 0

    def line(self, name: str, pair: str, way: str, faults: Iterable[str]) -> None:
        faults = list(faults)
        if faults:
            self.failed += 1
        else:
            self.passed += 1
        print(f"{'FAIL' if faults else 'PASS'} {name} {pair} {way}", flush=True)
        for fault in faults:
            print("\n".join(f"     {line}" for line in fault.splitlines()), flush=True)


class Suite:
    def __init__(self, places: Places, options: Options) -> None:
        self._places = places
        self._options = options
        self._report = Report()
        self._switchboard = Switchboard()
        self._backends: dict[str, Backend] = {}
        self._direct: dict[str, Tap] = {}
        self._nginx: Proxy | None = None
        self._ringways: list[Proxy] = []
        self._spoiled_taps: list[Tap] = []
        self._keys = itertools.count(1)

    async def run(self) -> int:
        began = time.monotonic()
        self._report.line("readme-table", "-", "-", table.outdated())
        tasks = [task for task in all_tasks() if self._options.only in f"{task.label} {task.pair}"]
        exams = [exam for exam in conformance.EXAMS if self._options.only in f"{exam.label} {exam.pair}"]
        if not tasks and not exams:
            self._report.line("selection", "-", "-", [f"no scenario has {self._options.only!r} in its name and pair"])
        try:
            async with asyncio.timeout(SUITE_SECONDS_MAX):
                await self._start(tasks, exams)
                # Before the rest and one by one: the runner has time limits of its own, of a second.
                for index, exam in enumerate(exams):
                    await self._examine(exam, index)
                await self._run_lanes(tasks)
        except StartError as error:
            self._report.line("start", "-", "-", [str(error)])
        except TimeoutError:
            self._report.line("everything", "-", "-", [f"was not done within {SUITE_SECONDS_MAX} s"])
        finally:
            await self._stop()
        print(f"took {time.monotonic() - began:.0f} s")
        print(f"{self._report.passed} passed, {self._report.failed} failed")
        return 1 if self._report.failed or not self._report.scenarios else 0

    async def _start(self, tasks: list[Task], exams: list[conformance.Exam]) -> None:
        await self._switchboard.start()
        self._switchboard.cut = self._cut
        names = [sdk for sdk in SDKS if any(task.server == sdk for task in tasks)]
        self._backends = await start_all(names, self._places, self._switchboard)
        endpoints = [
            Endpoint(f"{name}{suffix}", backend.tap.port, path)
            for name, backend in self._backends.items()
            for suffix, path in (("", "/mcp"), ("-json", "/json"))
        ]
        for exam in exams:
            if exam.endpoint not in self._backends:
                examinee = await Backend.start(exam.sdk, self._places, self._switchboard, role="examinee")
                self._backends[exam.endpoint] = examinee
                endpoints.append(Endpoint(exam.endpoint, examinee.tap.port, "/mcp"))
        ports = {name: backend.tap.port for name, backend in self._backends.items()}
        self._direct = await start_direct(ports, self._switchboard)
        if self._options.proxy in ("nginx", "all"):
            self._nginx = await start_nginx(endpoints, self._places, self._switchboard)
        if self._options.proxy in ("ringway", "all"):
            await self._start_ringways(endpoints)

    async def _start_ringways(self, endpoints: list[Endpoint]) -> None:
        if self._options.ringway is None:
            raise StartError("there is no ringway binary to test")
        shapes = ringway_shapes()
        if all(shape.io_driver == "epoll" for shape in shapes):
            print("note: this kernel refuses io_uring to us; Ringway runs on epoll only")
        for shape in shapes:
            self._ringways.append(
                await start_ringway(self._options.ringway, shape, endpoints, self._places, self._switchboard)
            )

    async def _stop(self) -> None:
        proxies = [*self._ringways, *([self._nginx] if self._nginx else [])]
        for tap in self._direct.values():
            tap.stop()
        for proxy, faults in zip(proxies, await asyncio.gather(*(proxy.stop() for proxy in proxies)), strict=True):
            self._report.line("lives-and-ends-well", "-", proxy.name, faults)
        await asyncio.gather(*(backend.stop() for backend in self._backends.values()))
        await self._switchboard.stop()

    def _cut(self, key: str, label: str) -> int:
        taps = [*self._direct.values(), *self._spoiled_taps, *(proxy.tap for proxy in self._ringways)]
        if self._nginx is not None:
            taps.append(self._nginx.tap)
        return sum(tap.cut(key, label) for tap in taps)

    async def _run_lanes(self, tasks: list[Task]) -> None:
        """Pairs are independent and mostly wait, so a few more lanes than cores keep the cores busy."""
        queue: asyncio.Queue[tuple[int, list[Task]]] = asyncio.Queue()
        for index, (_, paired) in enumerate(itertools.groupby(tasks, key=lambda task: task.pair)):
            queue.put_nowait((index, list(paired)))
        lanes = min((os.cpu_count() or 1) + 1, 6)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._spoil_all(tasks))
            for lane in range(lanes):
                group.create_task(self._lane(lane, queue))

    async def _lane(self, lane: int, queue: asyncio.Queue[tuple[int, list[Task]]]) -> None:
        clients = {sdk: ClientWorker(sdk, lane, self._places, self._switchboard) for sdk in SDKS}
        try:
            while not queue.empty():
                index, tasks = queue.get_nowait()
                for offset, task in enumerate(tasks):
                    await self._perform(task, clients[task.client], index + offset)
        finally:
            for client in clients.values():
                await client.stop()

    async def _perform(self, task: Task, client: ClientWorker, turn: int) -> None:
        """Direct first: it is the reference, and a scenario that fails direct says nothing about a proxy."""
        reference: Transcript | None = None
        for way in self._ways(task, turn):
            transcript, faults = await self._once(task, client, way)
            if way.name == "direct":
                reference = transcript if not faults else None
            elif reference is None:
                faults = [*faults, "there is no direct result to compare with"]
            elif transcript is not None:
                faults = [*faults, *_differences(reference, transcript, task)]
            self._report.line(task.label, task.pair, way.name, faults)
            self._report.scenarios += 1

    async def _spoil_all(self, tasks: list[Task]) -> None:
        """Beside the lanes, since most of it is waiting for what does not come."""
        few = asyncio.Semaphore(SPOILED_AT_ONCE)

        async def spoil(spoiling: Spoiling, task: Task) -> None:
            async with few:
                await self._spoil(spoiling, task)

        async with asyncio.TaskGroup() as group:
            for index, spoiling in enumerate(SPOILINGS):
                if spoilable := [task for task in tasks if task.label == spoiling.scenario]:
                    group.create_task(spoil(spoiling, spoilable[index % len(spoilable)]))

    async def _spoil(self, spoiling: Spoiling, task: Task) -> None:
        """The scenario's faults are what is wanted here; without any, it would let a broken proxy pass."""
        client = ClientWorker(task.client, SPOILED_LANE, self._places, self._switchboard)
        spoiler = Spoiler(spoiling, self._backends[task.server].tap.port)
        await spoiler.start()
        tap = Tap("client", spoiler.port, self._switchboard)
        await tap.start()
        self._spoiled_taps.append(tap)
        path = "/json" if task.scenario.json_answers else "/mcp"
        ways = (self._ways(task, 0)[0], Way(spoiling.name, tap, f"http://127.0.0.1:{tap.port}{path}"))
        try:
            reference, reference_faults = await self._once(task, client, ways[0])
            transcript, faults = await self._once(task, client, ways[1])
        finally:
            await client.stop()
            tap.stop()
            spoiler.stop()
        if reference is not None and transcript is not None:
            faults = [*faults, *_differences(reference, transcript, task)]
        missed = [] if faults or transcript is None else [f"{task.label} did not notice the damage", _story(transcript)]
        self._report.line(f"noticed-{spoiling.name}", task.pair, "spoiler", [*reference_faults, *missed])

    def _ways(self, task: Task, turn: int) -> list[Way]:
        direct = self._direct[task.server]
        path = "/json" if task.scenario.json_answers else "/mcp"
        ways = [Way("direct", direct, f"http://127.0.0.1:{direct.port}{path}")]
        if self._nginx is not None:
            ways.append(Way("nginx", self._nginx.tap, self._nginx.url(task.endpoint)))
        if self._ringways:
            ringway = self._ringways[turn % len(self._ringways)]
            ways.append(Way(ringway.name, ringway.tap, ringway.url(task.endpoint)))
        return ways

    async def _once(self, task: Task, client: ClientWorker, way: Way) -> tuple[Transcript | None, list[str]]:
        key = f"job-{next(self._keys)}"
        answer = await client.run({"scenario": task.name, "url": way.url, "key": key, "era": task.era})
        transcript = Transcript(
            answer.get("seen"),
            way.tap.take(key),
            self._backends[task.server].tap.take(key),
            self._switchboard.take(key),
        )
        if "error" in answer:
            return None, [answer["error"], _story(transcript)]
        faults = [
            f"unreadable HTTP: {exchange.end}"
            for exchange in (*transcript.client_side, *transcript.backend_side)
            if exchange.end.startswith("bad HTTP")
        ]
        try:
            task.scenario.check(transcript)
        except Exception as error:
            # A transcript of whatever shape is a failure of the scenario, not of the driver.
            faults += [f"{type(error).__name__}: {error}", _story(transcript)]
        return transcript, faults

    async def _examine(self, exam: conformance.Exam, turn: int) -> None:
        backend = self._backends[exam.endpoint]
        addresses = [("direct", f"http://127.0.0.1:{backend.tap.port}/mcp")]
        if self._nginx is not None:
            addresses.append(("nginx", self._nginx.untapped_url(exam.endpoint)))
        if self._ringways:
            ringway = self._ringways[turn % len(self._ringways)]
            addresses.append((ringway.name, ringway.untapped_url(exam.endpoint)))
        reference: list[str] | None = None
        for way, url in addresses:
            for attempt in range(1, conformance.ATTEMPTS_MAX + 1):
                results, faults = await conformance.examine(exam, way, url, attempt, self._places)
                if way != "direct":
                    faults += _line_differences(reference or [], results)
                if not faults:
                    break
                print(f"note: {exam.label} {exam.pair} {way}, attempt {attempt}: {faults[0]}")
            if way == "direct":
                reference = results
            self._report.line(exam.label, exam.pair, way, faults)
            self._report.scenarios += 1


def _differences(reference: Transcript, transcript: Transcript, task: Task) -> list[str]:
    expected, actual = (
        json.dumps(each.comparable(left_out_of(task)), indent=1, ensure_ascii=False).splitlines()
        for each in (reference, transcript)
    )
    damage = [fault for label in (CALL, ANSWER) for fault in damaged_bytes(transcript, label)]
    return [*_line_differences(expected, actual), *damage]


def _line_differences(expected: list[str], actual: list[str]) -> list[str]:
    difference = list(difflib.unified_diff(expected, actual, "direct", "proxied", lineterm="", n=2))
    return ["\n".join(difference[:DIFF_LINES_MAX])] if difference else []


def _story(transcript: Transcript) -> str:
    """What went over the wire, for whoever has to find out why."""
    lines = [f"events: {transcript.events}"]
    for side, exchanges in (("before the proxy", transcript.client_side), ("behind it", transcript.backend_side)):
        lines += [
            f"{side}: {each.label} -> {each.status} {each.end}, {len(each.response_body)} bytes "
            f"{bytes(each.response_body[:300])!r}"
            for each in exchanges
        ]
    return "\n".join(lines)
