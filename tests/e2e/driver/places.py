"""Where things are: the repository's own files, what the installer left, and this run's scratch folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

E2E = Path(__file__).resolve().parent.parent
PYTHON_SDKS = ("py1", "py2")
NODE_SDKS = ("ts1", "ts2")
SDKS = (*PYTHON_SDKS, *NODE_SDKS)


@dataclass(frozen=True)
class Places:
    installed: Path
    scratch: Path

    @property
    def node(self) -> Path:
        return self.installed / "node" / "bin" / "node"

    @property
    def nginx(self) -> str:
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise FileNotFoundError("nginx is not installed; tests/e2e/install should have brought it")
        return found

    def log(self, name: str) -> Path:
        return self.scratch / f"{name}.log"

    def program(self, sdk: str, role: str) -> tuple[list[Path], dict[str, str]]:
        """The command that runs `server` or `client` of an SDK, and the environment it needs besides."""
        if sdk in PYTHON_SDKS:
            python = self.installed / sdk / "bin" / "python"
            return [python, E2E / "sdk" / sdk / f"{role}.py"], {"PYTHONPATH": str(E2E / "sdk" / "common")}
        return [self.node, self._staged(sdk) / f"{role}.mjs"], {}

    def _staged(self, sdk: str) -> Path:
        """Node resolves imports from where a file lies, so the scripts are copied beside their node_modules."""
        stage = self.scratch / sdk
        if not stage.exists():
            stage.mkdir()
            for source in (E2E / "sdk" / "common", E2E / "sdk" / sdk):
                for script in source.glob("*.mjs"):
                    shutil.copy(script, stage)
            (stage / "node_modules").symlink_to(self.installed / sdk / "node_modules")
        return stage


def base_environment() -> dict[str, str]:
    """The caller's environment without what would send loopback traffic elsewhere."""
    dropped = {"http_proxy", "https_proxy", "all_proxy", "pythonpath", "node_options"}
    return {name: value for name, value in os.environ.items() if name.lower() not in dropped}
