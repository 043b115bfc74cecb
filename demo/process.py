"""`python -m demo.process NAME`: run one process of the estate until SIGTERM or SIGINT."""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

import uvicorn

from demo.app import App
from demo.estate import HOST, MEMBERS, Member, Settings, SettingsError
from demo.faults import Fault, FaultError, Files, read, write

# Requests that are still running at SIGTERM get this long to finish.
GRACE_S = 0.4
# Longer than the hour after which a gateway closes idle connections: the side that closes first must be the gateway,
# or a request meets a connection that is just being closed.
KEEP_ALIVE_S = 3700


class PortTaken(Exception):
    """Something else listens on the port."""


class Process(uvicorn.Server):
    """A uvicorn server that can stop listening and start again, and takes its faults from the control files."""

    def __init__(self, member: Member, settings: Settings, files: Files) -> None:
        self.member = member
        self.port = settings.port(member)
        self.app = App(member, settings)
        self._files = files
        self._stamp: tuple[int, int] | None = None
        super().__init__(
            uvicorn.Config(
                self.app,
                http="httptools",
                loop="uvloop",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="critical",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    def say(self, text: str) -> None:
        """One line of log."""
        say(self.member, text)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so in the log and in the state file."""
        await super().startup(sockets)
        self.say(f"listening on http://{HOST}:{self.port}, database {self.app.store.database}")
        self._stamp = self._files.stamp()
        self._record("", "")

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second: take a fault that was asked for."""
        stamp = self._files.stamp()
        if stamp != self._stamp and not self.should_exit:
            self._stamp = stamp
            await self._take(read(self._files.ask))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Idle connections close at once, busy ones after their answer or after GRACE_S."""
        self._stop_listening()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        end = asyncio.get_running_loop().time() + GRACE_S
        while self.server_state.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        self._abort_connections()
        await self.app.store.close()
        self._files.state.unlink(missing_ok=True)
        self.say("stopped")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT with exit status 0: a supervisor should see an orderly end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        yield

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    async def _take(self, asked: dict[str, object]) -> None:
        words, ticket = asked.get("fault"), str(asked.get("ticket", ""))
        if secret := asked.get("secret"):
            self._take_secret(str(secret), ticket)
            return
        try:
            fault = Fault.parse([str(word) for word in words] if isinstance(words, list) else [])
            await self._change(fault)
        except (FaultError, PortTaken) as error:
            self._record(ticket, str(error))
            self.say(f"fault not taken: {error}")
            return
        self._record(ticket, "")
        self.say(f"fault {fault}")

    def _take_secret(self, wanted: str, ticket: str) -> None:
        # The secret itself goes through no file.
        if wanted == "changed":
            self.app.change_secret()
        else:
            self.app.restore_secret()
        self._record(ticket, "")
        self.say(f"JWT secret {'own' if self.app.secret_is_own else 'changed'}")

    async def _change(self, fault: Fault) -> None:
        before = self.app.fault
        if before.kind == "down" and fault.kind != "down":
            listener = bind(self.member, self.port)
            await super().startup([listener])
        self.app.fault = fault
        if fault.kind == "down" and before.kind != "down":
            self._stop_listening()
            self._abort_connections()
        if before.kind == "hang":
            self._abort_connections()
        # The loop closes sockets on its next turns; what is confirmed after this must already be so.
        await asyncio.sleep(0.01)

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()
        self.servers = []

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _record(self, ticket: str, error: str) -> None:
        write(
            self._files.state,
            {
                "name": self.member.name,
                "port": self.port,
                "fault": self.app.fault.words(),
                "secret": "own" if self.app.secret_is_own else "changed",
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "ticket": ticket,
                "error": error,
            },
        )


def say(member: Member, text: str) -> None:
    """One line of log, in one write: processes often share a pipe."""
    sys.stdout.write(f"{member.served_by}: {text}\n")
    sys.stdout.flush()


def bind(member: Member, port: int) -> socket.socket:
    """A socket that listens on the port. Raises PortTaken with a sentence."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortTaken(f"port {port} {why}: {member.served_by} wants it; PORT_OFFSET moves every port") from None
    return listener


def main(arguments: list[str]) -> int:
    """Exit status 0 after a signal, 1 when the process cannot start, 2 for a name that is not in the estate."""
    if len(arguments) != 1 or arguments[0] not in MEMBERS:
        print(f"usage: python -m demo.process NAME, where NAME is one of: {', '.join(MEMBERS)}")
        return 2
    member = MEMBERS[arguments[0]]
    try:
        settings = Settings.read()
        port = settings.port(member)
        listener = bind(member, port)
    except (SettingsError, PortTaken) as error:
        say(member, str(error))
        return 1
    files = Files(settings.state_folder, member.name, port)
    try:
        held = files.hold()
        if held:
            files.ask.unlink(missing_ok=True)
    except OSError as error:
        say(member, f"STATE_DIR cannot be used: {error}")
        return 1
    if held is None:
        # Its port is free although it runs: it has been put down by a fault.
        say(member, f"already runs for port {port}; `python -m demo.fault list` shows it")
        return 1
    with held:
        Process(member, settings, files).run([listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
