"""The client process: takes one job a line on stdin, answers with one line on stdout.

A job is {"scenario", "url", "key", "era"}; the answer is {"seen": ...} with what the SDK's user saw, or {"error": ...}.
"""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

JOB_SECONDS_MAX = 15.0


@dataclass(frozen=True)
class Job:
    scenario: str
    url: str
    key: str
    era: str

    @property
    def headers(self) -> dict[str, str]:
        return {"x-e2e-key": self.key, "x-e2e-trace": "one, two"}


Scenario = Callable[[Any], Awaitable[Any]]


def run(scenarios: dict[str, Scenario], connector: Callable[[Job], Any]) -> None:
    for line in sys.stdin:
        job = Job(**json.loads(line))
        try:
            scenario = scenarios[job.scenario]
            answer = {"seen": asyncio.run(asyncio.wait_for(scenario(connector(job)), JOB_SECONDS_MAX))}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
