"""Asking Envoy's own validator, but only about shapes it has not seen. See docs/decisions/0001-validate-by-shape.md."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from migrations_app.gateways.envoy import testers
from migrations_app.gateways.envoy.bootstrap import RDS_FILE, BootstrapOptions, render_bootstrap
from migrations_app.gateways.envoy.render import SPLIT_EXAMPLE, VARIANT_HOSTS
from migrations_app.gateways.errors import Rejected

Json = dict[str, Any]


class Shapes:
    """The shape of a configuration: what remains of it when weights and the bodies of our own answers are taken out.

    `base` is one digest for everything that all routes lean on: the bootstrap, the clusters, the route table without
    its routes. `routes` has one digest per route. `envoy` says which Envoy is asked; empty while there is none to ask,
    and then what any Envoy has passed is good enough: a rollback must not wait for a missing validator.
    """

    def __init__(self, *, envoy: str, bootstrap: bytes, clusters: list[Json], routes: Json) -> None:
        hosts = routes.get("virtual_hosts", [])
        frame = {key: value for key, value in routes.items() if key != "virtual_hosts"}
        frames = [{key: value for key, value in host.items() if key != "routes"} for host in hosts]
        frames = [host for host in frames if host not in VARIANT_HOSTS]
        self.envoy = envoy
        self.base = _digest([bootstrap.decode(errors="replace"), clusters, frame, frames])
        self.routes = {_digest(_normal(route)) for host in hosts for route in host.get("routes", [])}

    def within(self, other: Shapes) -> bool:
        """Whether whoever passes the other passes this."""
        return self.base == other.base and self.routes <= other.routes

    def known_in(self, store: bytes | None) -> bool:
        """Whether a store made by `noted_in` has all of this."""
        envoy, base, routes = _parse_store(store)
        return (not self.envoy or envoy == self.envoy) and base == self.base and self.routes <= routes

    def noted_in(self, store: bytes | None) -> bytes:
        """The store with this added. Routes that were passed over another base are forgotten."""
        envoy, base, routes = _parse_store(store)
        kept = routes if (envoy, base) == (self.envoy, self.base) else set()
        body = {"envoy": self.envoy, "base": self.base, "routes": sorted(kept | self.routes)}
        return json.dumps(body, indent=1).encode()


class NoVerdict(Rejected):
    """The validator said neither yes nor no: it does not run, hangs or crashes."""


class Validator:
    """Envoy's `--mode validate` on one configuration with everything inlined. Takes 60-100 ms."""

    def __init__(self, binary: Path, *, timeout: float) -> None:
        self._binary = binary
        self._timeout = timeout

    def identity(self) -> str:
        """Changes when the Envoy binary is replaced; empty when it is not there."""
        try:
            found = self._binary.stat()
        except OSError:
            return ""
        return f"{self._binary}:{found.st_size}:{found.st_mtime_ns}"

    def check(self, *, bootstrap: bytes, clusters: list[Json], routes: Json, within: float | None = None) -> None:
        """Raise Rejected with Envoy's own reason, NoVerdict when it gives none `within` seconds (default: timeout)."""
        timeout = self._timeout if within is None else min(within, self._timeout)
        with tempfile.TemporaryDirectory(prefix="switchyard-validate-") as folder:
            path = Path(folder) / "envoy.json"
            path.write_bytes(_inlined(bootstrap, clusters, routes))
            command = [str(self._binary), "--mode", "validate", "-c", str(path), "-l", "error", "--disable-hot-restart"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
            except subprocess.TimeoutExpired as error:
                raise NoVerdict(f"Envoy's validator gave no verdict in {timeout:g} s") from error
            except OSError as error:
                raise NoVerdict(f"Envoy's validator does not run: {error}") from error
        said = testers.hidden(done.stderr or done.stdout, testers.secrets(routes))
        if done.returncode not in {0, 1}:
            raise NoVerdict(f"Envoy's validator ended with status {done.returncode}: {_reason(said, str(path))}")
        if done.returncode:
            raise Rejected(f"Envoy refuses the configuration: {_reason(said, str(path))}")


def default_bootstrap() -> bytes:
    """Stands in when the folder has no bootstrap of ours; only its shape matters."""
    return render_bootstrap(Path("/"), BootstrapOptions(port=1, admin_port=2))


def _inlined(bootstrap: bytes, clusters: list[Json], routes: Json) -> bytes:
    try:
        whole = json.loads(bootstrap)
        whole.pop("dynamic_resources", None)
        whole["static_resources"]["clusters"] = [_plain(cluster) for cluster in clusters]
        listener = whole["static_resources"]["listeners"][0]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager.pop("rds", None)
        manager["route_config"] = _plain(routes)
        for log in manager.get("access_log", []):
            log["typed_config"]["path"] = "/dev/null"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Rejected(f"bootstrap.json in the gateway's folder is not ours: {error!r}") from error
    return json.dumps(whole).encode()


def _plain(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if key != "@type"}


def _normal(route: Json) -> Json:
    """A route without what only carries data: a share between 0 and 100, a secret, and the body of an answer."""
    route = testers.hidden(route, testers.secrets({"virtual_hosts": [{"routes": [route]}]}))
    match route:
        case {"match": {"headers": [*headers]}} if any("range_match" in header for header in headers):
            example = {"range_match": {"end": str(SPLIT_EXAMPLE)}}
            same = [header | example if "range_match" in header else header for header in headers]
            return route | {"match": route["match"] | {"headers": same}}
        case {"match": {"runtime_fraction": {"default_value": {"numerator": int(share)}}}} if 0 < share < 100:
            fraction = route["match"]["runtime_fraction"]
            value = fraction["default_value"] | {"numerator": SPLIT_EXAMPLE}
            return route | {"match": route["match"] | {"runtime_fraction": fraction | {"default_value": value}}}
        case {"direct_response": {"body": {"inline_string": str()}}}:
            answer = route["direct_response"]
            return route | {"direct_response": answer | {"body": answer["body"] | {"inline_string": ""}}}
    return route


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _parse_store(store: bytes | None) -> tuple[str, str, set[str]]:
    try:
        parsed = json.loads(store or b"")
        return str(parsed["envoy"]), str(parsed["base"]), {str(digest) for digest in parsed["routes"]}
    except (ValueError, KeyError, TypeError):
        return "", "", set()


def _reason(output: str, path: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "exception" in line.lower()] or lines
    text = telling[-1] if telling else "it gives no reason"
    # Its log prefix, and the name of a file that is gone by now, help nobody.
    text = text.rsplit("] ", 1)[-1] if text.startswith("[") else text
    return text.replace(f"'{path}'", RDS_FILE).replace(path, RDS_FILE)[:1000]
