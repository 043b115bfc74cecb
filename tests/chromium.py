"""A Chromium for the browser tests: the system's, or Playwright's, or one that is installed now.

`python -m tests.chromium` makes sure that there is one and says nothing when all is well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The path of a Chromium: the setting CHROMIUM, then PATH, then the one that Playwright has downloaded."""
    if chosen := os.environ.get("CHROMIUM"):
        return chosen
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def works(path: str) -> bool:
    """Whether it starts at all: Playwright's own may lack libraries of the system."""
    command = [path, "--headless", "--no-sandbox", "--disable-gpu", "--version"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install() -> str | None:
    """Install one: Playwright's, else the system's package. Returns its path, or None when neither worked."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    for command in (
        [sys.executable, "-m", "playwright", "install", "chromium"],
        [*sudo, "apt-get", "update", "-qq"],  # a new machine knows of no package before it
        [*sudo, "apt-get", "install", "-y", "-qq", "chromium"],
    ):
        if shutil.which(command[0]) is None:
            continue
        print(f"installing a Chromium for the browser tests: {' '.join(command)}", flush=True)
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=600)
        path = find()
        if path is not None and works(path):
            return path
    return None


def main() -> int:
    path = find()
    if (path is not None and works(path)) or install() is not None:
        return 0
    print("There is no Chromium and none could be installed. Install one, or set CHROMIUM to the path of one.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
