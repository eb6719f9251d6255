"""The official conformance runner in server mode: the same checks must pass and fail on every way."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .places import Places, base_environment
from .process import Child

Check = tuple[str, dict[str, str]]

RUN_SECONDS_MAX = 90
# The runner gives up on some answers after one second, which a busy machine can exceed; a second attempt is told of.
ATTEMPTS_MAX = 2
_RUN_TIME = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")
# Counted at the pinned versions; fewer means that the runner or the examined server has quietly stopped testing.
_SCENARIOS_MIN = {"2025-11-25": 33, "2026-07-28": 40}
_CHECKS_MIN = {"2025-11-25": 84, "2026-07-28": 152}


@dataclass(frozen=True)
class Exam:
    """A server of an SDK examined by the rules of one protocol version."""

    sdk: str
    version: str

    @property
    def label(self) -> str:
        return f"conformance-{self.version}"

    @property
    def pair(self) -> str:
        return f"runner>{self.sdk}"

    @property
    def endpoint(self) -> str:
        return f"{self.sdk}-examinee"


EXAMS = (Exam("py1", "2025-11-25"), Exam("py2", "2025-11-25"), Exam("py2", "2026-07-28"))


async def examine(exam: Exam, way: str, url: str, attempt: int, places: Places) -> tuple[list[str], list[str]]:
    """The outcome of each check, one a line, and what is wrong with the run as such."""
    name = f"conformance-{exam.sdk}-{exam.version}-{way}-{attempt}"
    results = places.scratch / name
    runner = places.installed / "conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js"
    selection = ["--suite", "all", "--spec-version", exam.version]
    argv: list[str | Path] = [places.node, runner, "server", "--url", url, *selection, "--output-dir", results]
    child = await Child.start(name, argv, places.log(name), base_environment())
    ended = await child.ended(RUN_SECONDS_MAX)
    if not ended:
        return [], [f"the runner did not end within {RUN_SECONDS_MAX} s: {child.log_tail()}"]
    checks = _judged(results)
    scenarios = {scenario for scenario, _ in checks}
    passed = [check for _, check in checks if check["status"] == "SUCCESS"]
    faults = []
    if len(scenarios) < _SCENARIOS_MIN[exam.version]:
        faults.append(f"only {len(scenarios)} scenarios ran: {child.log_tail()}")
    if way == "direct" and (len(passed) < _CHECKS_MIN[exam.version] or len(passed) < len(checks)):
        faults.append(f"{len(passed)} of {len(checks)} checks passed: {_failures(checks)}")
    counted = Counter(f"{check['status']} {scenario}: {check['id']}" for scenario, check in checks)
    return sorted(f"{line} x{count}" for line, count in counted.items()), faults


def _judged(results: Path) -> list[Check]:
    """Every check that passed or failed, with its scenario's name; the folders are called server-NAME-TIME."""
    found: list[Check] = []
    for file in sorted(results.glob("server-*/checks.json")):
        scenario = _RUN_TIME.sub("", file.parent.name.removeprefix("server-"))
        # Those that only inform depend on timing.
        found += [(scenario, check) for check in json.loads(file.read_text()) if check["status"] != "INFO"]
    return found


def _failures(checks: list[Check]) -> str:
    failed = [check for _, check in checks if check["status"] != "SUCCESS"]
    return "; ".join(f"{check['id']}: {check.get('errorMessage', '')}" for check in failed)[:2000]
