"""The servers of the test run themselves."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg

from controlplane.embedded.children import free_port, port_is_free
from controlplane.environment import REPOSITORY
from tests.servers import postgres_server, redis_server, start_redis, stop_redis


def test_an_own_postgres_takes_connections_and_leaves_nothing():
    with postgres_server() as server:
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("select current_setting('server_encoding'), version()").fetchone()
        assert row is not None
        assert row[0] == "UTF8"
        assert row[1].startswith("PostgreSQL 18")
    assert port_is_free(server.port)
    assert not server.data.parent.exists()


def test_redis_can_be_stopped_and_started_again_on_its_port(tmp_path: Path):
    port = free_port()
    for _ in range(2):
        stop_redis(start_redis(port, tmp_path))
        assert port_is_free(port)


def test_an_own_redis_leaves_nothing():
    with redis_server() as server:
        assert server.answers()
    assert not server.answers()
    assert not server.folder.exists()


def test_a_run_starts_its_servers_and_leaves_none(tmp_path: Path):
    (tmp_path / "test_probe.py").write_text(
        textwrap.dedent("""
            import os, psycopg
            from urllib.parse import urlsplit

            def test_probe():
                with psycopg.connect(os.environ["DATABASE_URL"].replace("/switchyard", "/postgres")) as connection:
                    assert connection.execute("select 1").fetchone() == (1,)
                ports = [urlsplit(os.environ[name]).port for name in ("TEST_POSTGRES_URL", "REDIS_URL")]
                open("ports", "w").write(f"{ports[0]} {ports[1]}")
        """)
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TEST_", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-p", "tests.servers", "-p", "no:django", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env=environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ports = (tmp_path / "ports").read_text().split()
    assert len(ports) == 2
    assert all(port_is_free(int(port)) for port in ports)
