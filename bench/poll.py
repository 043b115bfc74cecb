"""What health polls cost and how late they are, beside Prometheus with its blackbox_exporter on the same targets.

Prints one line of JSON on standard output. See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.figures import Machine, finish, percentile, ratio, rounded, say
from bench.processes import NotMeasured, last_words, process, wait_for_port
from controlplane.embedded import children
from controlplane.embedded.children import free_port, wait_until
from controlplane.embedded.postgres import PostgresServer, run_as

INTERVAL = 1.0  # seconds
SETTLE = 4.0  # seconds after the start that do not count
# Of a trial on two cores, where they are not installed: Prometheus 2.42 and blackbox_exporter 0.23, 500 targets at 1 s.
PUBLISHED: dict[str, Any] = {
    "cpu_s_per_1000": 1.63,
    "late_p99_ms": 5.0,
    "source": "figures of an earlier trial, not of this run",
}
EXPECTED = {"cpu_over_prometheus": 1.0, "late_p99_ms": 50.0, "late_p99_hanging_over_not": 1.5}
BINARIES = {
    "prometheus": ("prometheus",),
    "blackbox": ("prometheus-blackbox-exporter", "blackbox_exporter"),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What one way of polling has done within the time that counts."""

    polls: int
    seconds: float
    cpu: dict[str, float]  # seconds of each kind of process
    late: list[float]  # milliseconds of each poll of a target that does not hang

    def figures(self) -> dict[str, Any]:
        per_1000 = {name: rounded(seconds / self.polls * 1000) for name, seconds in self.cpu.items()}
        return {
            "polls": self.polls,
            "polls_per_s": rounded(self.polls / self.seconds),
            "cpu_s_per_1000": rounded(sum(self.cpu.values()) / self.polls * 1000),
            "cpu_s_per_1000_of": per_1000,
            "late_p50_ms": rounded(percentile(self.late, 0.5)),
            "late_p99_ms": rounded(percentile(self.late, 0.99)),
        }


def paths(count: int, hanging: float) -> list[str]:
    """A path for each target; of each five with a share of 0.2 the last one hangs."""
    every = round(1 / hanging) if hanging else 0
    return [f"/{'hang' if every and n % every == every - 1 else 'ok'}/{n}" for n in range(count)]


def lateness(asked: dict[str, list[float]], since: float, until: float) -> list[float]:
    """Milliseconds by which each request came later than its target's schedule.

    The schedule of a target is its interval, begun at the moment by which its earliest request came: so it is found for
    every way of polling from outside, and no request is too early. Targets that hang are left out.
    """
    late = []
    for path, all_moments in asked.items():
        moments = [moment for moment in all_moments if since <= moment <= until]
        if path.startswith("/hang/") or not moments:
            continue
        first = moments[0]
        offsets = [moment - first - INTERVAL * round((moment - first) / INTERVAL) for moment in moments]
        late += [(offset - min(offsets)) * 1000 for offset in offsets]
    return late


def measure(
    folder: Path,
    count: int,
    hanging: float,
    seconds: float,
    start: Callable[[Path, int, list[str]], contextlib.AbstractContextManager[dict[str, int]]],
) -> Work:
    """Let one way of polling run. `start` yields its processes by name."""
    port, file = free_port(), folder / f"asked-{time.monotonic_ns()}"
    wanted, log = paths(count, hanging), folder / "targets.log"
    with process([sys.executable, "-m", "bench.poll_targets", str(port), str(file)], log) as targets:
        wait_for_port(port, targets, log)
        with start(folder, port, wanted) as pids:
            time.sleep(SETTLE)
            before, since = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
            time.sleep(seconds)
            until = time.monotonic()
            spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    asked = json.loads(file.read_text())
    polls = sum(since <= moment <= until for moments in asked.values() for moment in moments)
    if not polls:
        raise NotMeasured(f"nothing was polled: {last_words(folder / 'poller.log')}")
    return Work(polls, until - since, spent, lateness(asked, since, until))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all below it, those that have ended included."""
    top, whole = psutil.Process(pid), 0.0
    for one in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            whole += times.user + times.system + times.children_user + times.children_system
    return whole


# -- switchyard -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def switchyard(folder: Path, port: int, wanted: list[str]) -> Iterator[dict[str, int]]:
    """A PostgreSQL of its own, crash-safe, and the poller as its task runs it."""
    with postgres(folder) as (server, database):
        environment = {"DATABASE_URL": server.url("bench"), "SWITCHYARD_MODE": "local", "SECRET_KEY": "x" * 50}
        environment |= {"GATEWAY_URL": f"http://127.0.0.1:{port}", "HEALTH_TIMEOUT": "1.0"}
        for step in ("migrate", "plan"):
            command = [sys.executable, "-m", "bench.poll", f"--{step}", str(port), *wanted]
            _run(command, environment)
        log = folder / "poller.log"
        with process([sys.executable, "-m", "bench.poll", "--poller"], log, env=environment) as poller:
            if not wait_until(lambda: "polling" in log.read_text(), seconds=20, alive=lambda: poller.poll() is None):
                raise NotMeasured(f"the poller does not start: {last_words(log)}")
            yield {"poller": poller.pid, "postgres": database}


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[PostgresServer, int]]:
    server = PostgresServer(folder / f"postgres-{time.monotonic_ns()}", free_port())
    server.initialise()
    with server.data.with_suffix(".log").open("ab") as output:
        child = children.start(server.command(), output=output, run_as=run_as())
    try:
        server.wait(child)
        server.ensure("postgres", "", database="bench")
        yield server, child.pid
    finally:
        children.stop(child, signal.SIGINT)


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"{command[3]} failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")


def migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)


def make_plan(port: int, wanted: list[str]) -> None:
    """Rows of a plan whose services are these paths; the first is the monolith's."""
    from migrations_app.models import Plan, Service

    every = {"interval": f"{INTERVAL:g}s"}
    plan = Plan.objects.create(
        key="bench",
        title="Bench",
        revision=1,
        monolith_host="127.0.0.1",
        monolith_port=port,
        monolith_health_path=wanted[0],
        monolith_health=every,
    )
    Service.objects.bulk_create(
        Service(plan=plan, key=f"s{n}", title=path, host="127.0.0.1", port=port, health_path=path, health=every)
        for n, path in enumerate(wanted[1:])
    )


def run_poller() -> None:
    """As migrations_app.tasks.poll_health does, until SIGTERM."""
    from migrations_app.actions.soaks import watch_soaks
    from migrations_app.observe import poller

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    say("polling")
    poller.run(lambda: bool(ended), seconds=3600, after_write=watch_soaks)


# -- Prometheus -----------------------------------------------------------------------------------------------------


def installed() -> dict[str, str]:
    """The programs that are there, by what they are."""
    found = {what: next(filter(None, map(shutil.which, names)), None) for what, names in BINARIES.items()}
    return {what: path for what, path in found.items() if path}


@contextlib.contextmanager
def prometheus(folder: Path, port: int, wanted: list[str]) -> Iterator[dict[str, int]]:
    """blackbox_exporter asks, Prometheus has it ask and keeps what it found."""
    programs, own, box = installed(), free_port(), free_port()
    modules = folder / "blackbox.yml"
    modules.write_text(json.dumps({"modules": {"http": {"prober": "http", "timeout": "1s"}}}))
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(_scrapes(port, box, wanted)))
    data = folder / f"prometheus-{time.monotonic_ns()}"
    listens = f"--web.listen-address=127.0.0.1:{box}"
    with process(
        [programs["blackbox"], f"--config.file={modules}", listens, "--log.level=error"], folder / "blackbox.log"
    ) as blackbox:
        wait_for_port(box, blackbox, folder / "blackbox.log")
        with process(
            [
                programs["prometheus"],
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{own}",
                "--log.level=error",
            ],
            folder / "prometheus.log",
        ) as server:
            wait_for_port(own, server, folder / "prometheus.log")
            _wait_ready(own)
            yield {"prometheus": server.pid, "blackbox": blackbox.pid}


def _scrapes(port: int, box: int, wanted: list[str]) -> dict[str, Any]:
    targets = [f"http://127.0.0.1:{port}{path}" for path in wanted]
    return {
        "global": {"scrape_interval": f"{INTERVAL:g}s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {
                "job_name": "health",
                "metrics_path": "/probe",
                "params": {"module": ["http"]},
                "static_configs": [{"targets": targets}],
                "relabel_configs": [
                    {"source_labels": ["__address__"], "target_label": "__param_target"},
                    {"source_labels": ["__param_target"], "target_label": "instance"},
                    {"target_label": "__address__", "replacement": f"127.0.0.1:{box}"},
                ],
            }
        ],
    }


def _wait_ready(port: int) -> None:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    if not wait_until(ready, seconds=30):
        raise NotMeasured("Prometheus does not become ready")


# -- the report -----------------------------------------------------------------------------------------------------


def measured(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    machine, there = Machine(), installed()
    ways = {"switchyard": switchyard} | ({"prometheus": prometheus} if len(there) == len(BINARIES) else {})
    report: dict[str, Any] = {"bench": "poll", "targets": count, "interval_s": INTERVAL}
    for name, way in ways.items():
        for case, hanging in (("all_answer", 0.0), ("hanging_20_percent", 0.2)):
            work = measure(folder, count, hanging, seconds, way)
            report.setdefault(name, {})[case] = work.figures()
            say(f"{name}, {case.replace('_', ' ')}: {report[name][case]}")
    if "prometheus" not in report:
        missing = ", ".join(sorted(set(BINARIES) - set(there)))
        say(f"not installed: {missing}; compared with the figures of an earlier trial")
        report["prometheus"] = {"all_answer": PUBLISHED, "not_installed": missing}
    own, other = report["switchyard"], report["prometheus"]["all_answer"]
    report["ratios"] = {
        "cpu_over_prometheus": ratio(own["all_answer"]["cpu_s_per_1000"], other["cpu_s_per_1000"]),
        # What falls behind on a busy machine spends more on each poll that it does; here it did not.
        "cpu_over_prometheus_of_earlier_trial": ratio(own["all_answer"]["cpu_s_per_1000"], PUBLISHED["cpu_s_per_1000"]),
        "late_p99_hanging_over_not": ratio(own["hanging_20_percent"]["late_p99_ms"], own["all_answer"]["late_p99_ms"]),
    }
    return report | {"expected": EXPECTED, "machine": machine.figures()}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it was measured, 1 when it could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench.poll", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two or four blocks")
    for step in ("--migrate", "--plan"):
        parser.add_argument(step, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--poller", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.migrate or chosen.plan or chosen.poller:
        return _step(chosen)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user and must get in
        try:
            report = measured(folder, chosen.targets, chosen.seconds)
        except NotMeasured as problem:
            say(f"not measured: {problem}")
            return 1
    finish(report)
    return 0


def _step(chosen: argparse.Namespace) -> int:
    """One of the processes of the run, in which Django is set up."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    if chosen.migrate:
        migrate()
    elif chosen.plan:
        make_plan(int(chosen.plan[0]), chosen.plan[1:])
    else:
        run_poller()
    return 0


if __name__ == "__main__":
    sys.exit(main())
