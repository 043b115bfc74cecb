"""The processes of an installation: what each runs, how it is asked to stop, and which of its lines nobody needs."""

from __future__ import annotations

import re
import signal
import sys

from controlplane.embedded.installation import Installation
from controlplane.embedded.postgres import run_as
from controlplane.embedded.supervisor import Part

# At their start these say LOG, and so on, for what is no news; warnings and above stay.
_POSTGRES_NOISE = re.compile(r"^(LOG|DETAIL|HINT|STATEMENT):|the database system is (starting up|shutting down)")
_REDIS_NOISE = re.compile(
    r"oO0OoO0OoO0Oo|# Redis version=|# Configuration loaded|# Server initialized|overcommit_memory"
    r"|Transparent Huge Pages|TCP backlog|maximum open files|User requested shutdown|now ready to exit"
)
_CELERY_NOISE = re.compile(
    r"superuser privileges|uid=0|_warn_or_raise_security_error"
    r"|SecurityWarning|warnings\.warn|^\s*$|celery beat v|^LocalTime ->|^Configuration ->"
    r"|^ +\. (broker|loader|scheduler|db|logfile|maxinterval) ->|^__ +- +\.\.\. __|^Please specify a different user"
    r"|^User information|absolutely not recommended"
)


def python(module: str, *arguments: str) -> list[str]:
    """A command line that runs one of our modules with our own interpreter."""
    return [sys.executable, "-m", module, *arguments]


def postgres(it: Installation) -> Part:
    return Part(
        "postgres",
        it.postgres.command(),
        stop_signal=signal.SIGINT,
        run_as=run_as(),
        noise=_POSTGRES_NOISE,
        database=True,
    )


def redis(it: Installation) -> Part:
    return Part("redis", it.redis.command(), noise=_REDIS_NOISE, database=True)


def setup(it: Installation) -> Part:
    return Part("setup", python("controlplane.embedded.setup", "demo" if it.demo else "up"), once=True)


def web(it: Installation) -> Part:
    options = ["--host", "127.0.0.1", "--port", str(it.ports.dashboard), "--timeout-graceful-shutdown", "2"]
    quiet = ["--no-access-log", "--log-level", "warning", "--no-server-header"]
    # No proxy is in front: who sends an X-Forwarded-For here has made it up, to get round the sign-in throttle.
    return Part("web", python("uvicorn", "controlplane.asgi:application", *options, *quiet, "--no-proxy-headers"))


def worker(_: Installation) -> Part:
    """Applies changes to the gateway, in the process that takes the message: a click waits for it."""
    return _celery_worker("worker", "gateway", "--pool", "solo")


def observer(_: Installation) -> Part:
    """Polls health, reads traffic and runs checks, out of the way of changes: one process polls, two do the rest."""
    return _celery_worker("observer", "observe,polls", "--concurrency", "3")


def _celery_worker(name: str, queue: str, *pool: str) -> Part:
    options = ["--loglevel", "WARNING", "--hostname", f"{name}@%h", "--queues", queue, *pool]
    lonely = ["--prefetch-multiplier", "1", "--without-gossip", "--without-mingle"]
    return Part(
        name,
        python("celery", "--quiet", "-A", "controlplane", "worker", *options, *lonely),
        # Even its cold shutdown takes two seconds, and every task stands being cut off anywhere (tests/faults).
        stop_signal=signal.SIGKILL,
        noise=_CELERY_NOISE,
    )


def beat(it: Installation) -> Part:
    options = ["--loglevel", "WARNING", "--schedule", str(it.state / "beat-schedule"), "--pidfile", ""]
    return Part("beat", python("celery", "--quiet", "-A", "controlplane", "beat", *options), noise=_CELERY_NOISE)


def demo_database(_: Installation) -> Part:
    return Part("demo-data", python("demo.database"), once=True)


def demo_estate(_: Installation) -> list[Part]:
    """The monolith and the ten services, each a process of its own."""
    from demo.estate import MEMBERS

    return [Part(name, python("demo.process", name)) for name in MEMBERS]


def traffic(it: Installation) -> Part:
    return Part("traffic", python("demo.traffic", "--gateway", it.gateway_url, "--rate", "20"))


def ready(it: Installation) -> Part:
    """The product's own word that everything asked for is confirmed."""
    return Part("ready", [sys.executable, "manage.py", "ready", "--wait", "60"], once=True)
