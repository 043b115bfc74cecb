"""Runs a benchmark, tiny, on its real processes: it ends with one line of JSON that has its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from controlplane.environment import REPOSITORY


def run(module: str, *options: str, seconds: float = 180) -> dict:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)
