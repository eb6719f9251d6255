"""`python -m driver`: runs the scenarios; `run` beside this package is the command for people."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from . import table
from .places import Places
from .suite import Options, Suite


def parse(argv: list[str]) -> tuple[argparse.Namespace, Options]:
    parser = argparse.ArgumentParser(prog="tests/e2e/run")
    parser.add_argument("--only", default="", metavar="PATTERN", help="run what contains PATTERN: `name pair`")
    parser.add_argument("--proxy", choices=("nginx", "ringway", "all"), default="all")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder with logs and configurations")
    parser.add_argument("--table", action="store_true", help="print the table of the README and stop")
    parser.add_argument("--installed", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--ringway", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    return arguments, Options(arguments.only, arguments.proxy, arguments.ringway)


async def main(argv: list[str]) -> int:
    arguments, options = parse(argv)
    if arguments.table:
        print(table.markdown())
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="ringway-e2e-"))
    try:
        return await Suite(Places(arguments.installed.resolve(), scratch), options).run()
    finally:
        if arguments.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
