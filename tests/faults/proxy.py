"""A TCP proxy in front of PostgreSQL that fails as the network, or the server behind it, does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from enum import Enum

CHANGE = b'INSERT INTO "migrations_app_auditevent"'  # what tells the transaction of a change from all others


class At(Enum):
    """What befalls the commit of a change."""

    CUT_BEFORE = "the connection breaks before the server has it"
    CUT_AFTER = "the server carries it out; the connection breaks before its answer"
    HANG = "nothing comes through any more, in either direction"


class Proxy:
    """One port that leads to another one. Threads pass the bytes on; `close` ends them and all connections."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.open: set[socket.socket] = set()
        self.flows = threading.Event()
        self.flows.set()
        self._refuses = False
        self._at: At | None = None
        self.met = 0  # commits that met what was set for them
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        """As a server that was stopped: every connection breaks, and so does every new one."""
        self._refuses = True
        self.cut()

    def hang(self) -> None:
        """As a server that was hung: connections stay and are taken, nothing comes back."""
        self.flows.clear()

    def at_commit(self, what: At) -> None:
        """Befalls the next commit of a change."""
        self._at = what

    def well(self) -> None:
        self._refuses, self._at = False, None
        if not self.flows.is_set():
            # What was sent meanwhile is lost, as with a host that came back after a power cut.
            self.cut()
            self.flows.set()

    def cut(self) -> None:
        for end in list(self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._refuses = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            server = socket.create_connection(self._target)
            _Line(self, client, server)

    def befalls(self) -> At | None:
        """What is set for a commit, once."""
        what, self._at = self._at, None
        self.met += what is not None
        return what


class _Line:
    """One connection: a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._ends, self._changes, self._swallows = proxy, (client, server), False, False
        self._still = [self._to_server, self._to_client]  # the directions that bytes go in
        self._ending = threading.Lock()
        proxy.open |= {client, server}
        for way in ((client, server, self._to_server), (server, client, self._to_client)):
            threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]) -> None:
        """Until either end is gone. `passes` says whether a piece is passed on; if not, the connection breaks."""
        try:
            while piece := source.recv(65536):
                self._proxy.flows.wait()
                if not passes(piece):
                    break
                target.sendall(piece)
        except OSError:
            pass
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._ending:
            self._still.remove(passes)
            if not self._still:
                self._proxy.open -= set(self._ends)
                for end in self._ends:
                    end.close()

    def _to_server(self, piece: bytes) -> bool:
        self._changes |= CHANGE in piece
        if not (self._changes and b"COMMIT" in piece):
            return True
        self._changes = False
        what = self._proxy.befalls()
        self._swallows = what is At.CUT_AFTER
        if what is At.HANG:
            self._proxy.hang()
            self._proxy.flows.wait()
            return False
        return what is not At.CUT_BEFORE

    def _to_client(self, _piece: bytes) -> bool:
        return not self._swallows
