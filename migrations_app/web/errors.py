"""Pages for what goes wrong: told in place, with what to do next."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return HttpResponse("This form was too old or came from elsewhere. Load the page again and repeat.", status=403)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return HttpResponse("You may not do this.", status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return HttpResponse("There is nothing here.", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Something broke on our side.", status=500)
