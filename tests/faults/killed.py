"""Passes of the loop that are killed in the middle, each in a fork of this process.

`python -m tests.faults.killed` reads numbers, one on a line. For each it forks, and the fork runs one pass over all
gateways but sends itself SIGKILL just before its Nth step that the outside can see: syncing a file, renaming one, or
asking the gateway. It prints `killed` or, when the pass had fewer steps, `done`.
"""

from __future__ import annotations

import os
import signal
import sys

import django
import httpx


def run_pass(steps: int) -> None:
    left = steps

    def counted(call):
        def step(*args, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return step

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    httpx.Client.get = counted(httpx.Client.get)
    from migrations_app.reconcile.loop import reconcile_all

    (done,) = reconcile_all()
    if done.error:
        sys.stderr.write(f"{done.error}\n")
        os._exit(1)


def main() -> None:
    django.setup()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            run_pass(int(line))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print({0: "done", -signal.SIGKILL: "killed"}.get(status, f"ended with {status}"), flush=True)


if __name__ == "__main__":
    main()
