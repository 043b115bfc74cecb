"""Passes of the loop and clicks that are killed or stopped in the middle, each in a fork of this process.

`python -m tests.faults.killed` reads one line of JSON for each, `{"do": "pass", "at": 3, "by": "SIGKILL", ...}`, and
forks. The fork does it, but sends itself the signal just before its Nth step that anybody outside can see: a statement
that locks, writes or tells, a commit, the lock of the gateway's folder, the sync or the rename of a file, a question to
the gateway. What lies between two of these leaves no trace, so these are all the points at which it can die. Without
`at` it is left alone. With `"of": "gateway"` only steps at the gateway and in its folder count.

- `{"do": "pass"}` is one pass over all gateways
- `{"do": "click", "path": ..., "fields": {...}, "cookies": {...}}` is a form sent to the dashboard, through all of it
  but the socket; the answer's last step is to leave the process

It prints a line of JSON: `{"ended": "done", "answer": STATUS}`, or `"killed"`. After `"stopped"` it waits for one more
line, lets the fork go on, and prints how that ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import django
import httpx
from django.core.checks.urls import check_url_config

SEEN = re.compile(r"FOR UPDATE|pg_advisory|pg_notify|\b(INSERT|UPDATE|DELETE)\b")  # of a statement, by others


class Steps:
    """Counts down, and sends this process the signal before the last one. None: never."""

    def __init__(self, at: int | None, number: signal.Signals) -> None:
        self._left, self._number = at, number

    def step(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **options: Any) -> Any:
            self.step()
            return call(*args, **options)

        return stepped

    def statement(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """A wrapper of Django's for everything that is sent to the database."""
        if SEEN.search(str(sql)):
            self.step()
        return execute(sql, params, many, context)


def run(asked: dict[str, Any], tell: int) -> None:
    """`tell`: the file descriptor that takes the answer."""
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper

    steps = Steps(asked.get("at"), signal.Signals[asked.get("by", "SIGKILL")])
    fcntl.flock, os.fsync, os.replace = map(steps.before, (fcntl.flock, os.fsync, os.replace))
    httpx.Client.get = steps.before(httpx.Client.get)
    with contextlib.ExitStack() as counted:
        if "database" in asked.get("of", "gateway and database"):
            BaseDatabaseWrapper._commit = steps.before(BaseDatabaseWrapper._commit)
            counted.enter_context(connection.execute_wrapper(steps.statement))
        answer = _pass() if asked["do"] == "pass" else _click(asked)
    steps.step()
    os.write(tell, json.dumps(answer).encode())


def _pass() -> dict[str, Any]:
    from migrations_app.reconcile.loop import reconcile_all

    (done,) = reconcile_all()
    return {"error": done.error}


def _click(asked: dict[str, Any]) -> dict[str, Any]:
    from django.test import Client

    client = Client(raise_request_exception=False, headers={"host": "127.0.0.1"})
    for name, value in asked["cookies"].items():
        client.cookies[name] = value
    return {"answer": client.post(asked["path"], asked["fields"]).status_code}


def _wait(child: int) -> str:
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return "stopped"
    code = os.waitstatus_to_exitcode(status)
    return {0: "done", -signal.SIGKILL: "killed"}.get(code, f"ended with {code}")


def main() -> None:
    django.setup()
    # Loaded once, and not by every fork anew.
    check_url_config(None)
    import_module("migrations_app.reconcile.loop")
    for line in sys.stdin:
        hear, tell = os.pipe()
        if (child := os.fork()) == 0:
            os.close(hear)
            run(json.loads(line), tell)
            os._exit(0)
        os.close(tell)
        ended = _wait(child)
        if ended == "stopped":
            print(json.dumps({"ended": ended}), flush=True)
            sys.stdin.readline()
            os.kill(child, signal.SIGCONT)
            ended = _wait(child)
        with os.fdopen(hear) as said:
            answer = said.read()
        print(json.dumps({"ended": ended} | json.loads(answer or "{}")), flush=True)


if __name__ == "__main__":
    main()
