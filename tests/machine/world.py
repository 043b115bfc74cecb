"""What the plan of these tests moves and asks: a real old side, accounts, and a way to begin anew quickly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import connection

from migrations_app.actor import SYSTEM, Actor
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.schema import Plan
from migrations_app.reconcile.adapters import forget_adapters

TO_BEGIN_WITH = {
    "mia": "release manager",
    "max": "release manager",
    "ada": "approver",
    "abe": "approver",
    "root": "administrator",
}


class OldSide:
    """An HTTP server whose /ready answers 200 while `state` is held, 503 when it is not, and else hangs up.

    What it answers is how things are when it is asked; a good answer takes so many seconds to arrive.
    """

    def __init__(self, *, takes: float = 0.0) -> None:
        self.state = "held"
        outside = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state = outside.state
                if state == "unknown":
                    self.close_connection = True
                    return
                if state == "held":
                    time.sleep(takes)
                self.send_response(HTTPStatus.OK if state == "held" else HTTPStatus.SERVICE_UNAVAILABLE)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def old_side(*, takes: float = 0.0) -> Iterator[OldSide]:
    made = OldSide(takes=takes)
    try:
        yield made
    finally:
        made.close()


def begin(document: Plan) -> None:
    """An empty database but for the accounts, their first roles, and the plan."""
    tables = [
        model._meta.db_table for model in apps.get_app_config("migrations_app").get_models(include_auto_created=True)
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
    groups = {group.name: group for group in Group.objects.all()}
    for name, role in TO_BEGIN_WITH.items():
        user, _ = User.objects.get_or_create(username=name)
        user.groups.set([groups[role]])
    forget_adapters()
    load_plan(document, actor=SYSTEM, reason="to begin with")


def actor(name: str) -> Actor:
    """As a request has it: the account as it is now."""
    return Actor.signed_in(User.objects.get(username=name))
