"""`make demo`'s supervisor: everything answers, the checks of the plan follow what is really done, nothing is left."""

from __future__ import annotations

import json
import re
import signal

import httpx

from tests.controlplane.started import STOP_SECONDS, Start, Started


def test_the_demo_answers_in_full_when_it_says_ready(start: Start):
    demo = start("demo")
    demo.ready()
    accounts = re.findall(r"^account +(\S+) +password +(\S+)$", demo.log, re.MULTILINE)
    assert {name for name, _ in accounts} >= {"release-manager", "approver", "support", "administrator"}
    for port in demo.ports.demo:
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    status = httpx.get(f"http://127.0.0.1:{demo.ports.gateway}/routing-status")
    assert '"USE_AUTH_SERVICE":false' in status.text
    listed = demo.command("manage.py", "week", "list")
    assert listed.returncode == 0, listed.stderr
    assert "Enable safe services" in listed.stdout
    assert_checks_follow_what_is_really_done(demo)

    # A service may die; the demo goes on and brings it back.
    demo.child("rag").kill()
    demo.wait_for("rag started again", 10)
    assert demo.stop(signal.SIGTERM) < STOP_SECONDS, demo.log
    demo.assert_nothing_is_left()


def assert_checks_follow_what_is_really_done(demo: Started) -> None:
    """The checks of week 3, in a second terminal with nothing set: each fails and passes by doing the real thing."""
    listed = json.loads(demo.command("manage.py", "prerequisite", "list", "--week", "3", "--json").stdout)
    ids = {row["key"]: str(row["id"]) for row in listed}

    def check(key: str) -> tuple[int, str]:
        done = demo.command("manage.py", "prerequisite", "check", ids[key], "--json")
        return done.returncode, json.loads(done.stdout)["value"]

    assert check("database-backup") == (3, "no file matches tracseq_main-*.dump")
    assert check("user-data") == (3, "0 of 40 users are the same")
    assert check("jwt") == (3, "the auth service does not sign the account demo in: 401")

    for module in ("demo.backup", "demo.migrate_users"):
        done = demo.command("-m", module)
        assert done.returncode == 0, done.stdout + done.stderr
    held, value = check("database-backup")
    assert held == 0, value
    assert value.startswith("tracseq_main-2")
    assert check("user-data") == (0, "40 of 40 users are the same")
    assert check("jwt")[0] == 0

    assert demo.command("-m", "demo.break_hash").returncode == 0
    assert check("user-data") == (3, "39 of 40 users are the same")
    assert demo.command("-m", "demo.jwt_secret", "auth", "change").returncode == 0
    assert check("jwt") == (3, "the auth service refuses the monolith's token: 401")
    assert demo.command("-m", "demo.jwt_secret", "auth", "restore").returncode == 0
    assert check("jwt")[0] == 0
