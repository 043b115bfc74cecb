"""Runs the middleware of a request in one thread."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_only_middleware


@sync_only_middleware
def one_thread(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Stands innermost, and does nothing itself.

    Under ASGI Django takes each middleware that could be asynchronous for one that is, and then carries the request to
    a thread and back for every hook of it: some twenty switches a request. With a synchronous one innermost, the others
    run as plain calls in one thread. Asynchronous views still run in the event loop.
    """
    return get_response
