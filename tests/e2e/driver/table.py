"""The table of the README, made from the scenarios themselves so that it cannot say anything else."""

from __future__ import annotations

from .places import E2E, SDKS
from .scenarios import LEGACY, MODERN, MODERN_SDKS, SCENARIOS, all_tasks, why_not

BEGIN, END = "<!-- scenarios: begin -->", "<!-- scenarios: end -->"


def markdown() -> str:
    rows = [
        f"| `{name}` | {scenario.title} | {_pairs(name, LEGACY, SDKS)} | {_pairs(name, MODERN, MODERN_SDKS)} |"
        for name, scenario in SCENARIOS.items()
    ]
    tasks = all_tasks()
    counts = {era: sum(task.era == era for task in tasks) for era in (LEGACY, MODERN)}
    return "\n".join(
        [
            "| scenario | what happens | legacy pairs | modern pairs |",
            "|---|---|---|---|",
            *rows,
            f"| | all | {counts[LEGACY]} | {counts[MODERN]} |",
        ]
    )


def outdated() -> list[str]:
    """What is wrong with the README's table; `run --table` prints the right one."""
    text = (E2E / "README.md").read_text()
    written = text.partition(BEGIN)[2].partition(END)[0].strip()
    return [] if written == markdown() else ["the table in README.md is not that of `tests/e2e/run --table`"]


def _pairs(name: str, era: str, sdks: tuple[str, ...]) -> str:
    reasons = [why_not(name, era, client, server) for client in sdks for server in sdks]
    missing = "; ".join(dict.fromkeys(reason for reason in reasons if reason is not None))
    count = reasons.count(None)
    if not missing:
        return f"all {count}"
    return f"{count} of {len(reasons)}: {missing}" if count else f"none: {missing}"
