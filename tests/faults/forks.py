"""Asks `tests.faults.killed` for passes and clicks that die or stop on their way."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from controlplane.environment import REPOSITORY
from tests.faults.system import System


class Forks:
    """Each call of `run` is a fork of its own, of a process that has loaded the product once."""

    def __init__(self, system: System, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killed"], env=system.estate.environ(**environ), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip

    def run(self, **asked: Any) -> dict[str, Any]:
        """See tests.faults.killed: how it ended, and the answer if there was one."""
        return self._ask(json.dumps(asked))

    def go_on(self) -> dict[str, Any]:
        """Let the fork that has stopped go on, and wait for its end."""
        return self._ask("")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
