"""`python -m requirements.lock [--upgrade]`: write the lock files anew from pyproject.toml.

dev.txt comes first and holds everything; base.txt and embedded.txt are cut from it, so all three agree on versions.
Without --upgrade, what is locked stays as it is where pyproject.toml allows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
EXTRAS = {"dev": ["embedded", "dev"], "base": [], "embedded": ["embedded"]}
# The files name no host and no local path: where packages come from is the installer's setting.
OPTIONS = [
    "--quiet", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header",
    "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-options",
]  # fmt: skip


def main(arguments: list[str]) -> int:
    for name, extras in EXTRAS.items():
        command = [sys.executable, "-m", "piptools", "compile", *OPTIONS]
        command += [f"--extra={extra}" for extra in extras]
        command += arguments if name == "dev" else ["--constraint", "requirements/dev.txt"]
        command += ["--output-file", f"requirements/{name}.txt", "pyproject.toml"]
        done = subprocess.run(command, cwd=FOLDER.parent, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
