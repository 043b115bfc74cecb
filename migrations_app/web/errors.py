"""What goes wrong is told in place, with what to do next. None of these touches the database."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from migrations_app.actions.evidence import MOST_BYTES

from .bodies import LARGEST_OF_API
from .problems import Problem, is_api

_FOR_SCRIPTS = {
    HTTPStatus.NOT_FOUND: "The API has no such address. docs/api.md lists them.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"A body may have {LARGEST_OF_API // 1024} kB. Nothing was done.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "It is not known whether this was carried out. Ask for the state first.",
}
_KINDS = {
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.FORBIDDEN: "not-permitted",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
}
# On the pages of an error: a rollback is confirmed, or it is said how to do it without this page.
ROLLBACK_BY_HAND = (
    "To roll back by hand: manage.py week rollback, or, while the database does not answer, manage.py panic."
)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without a valid token: the page is from before a sign-in, or the form came from elsewhere."""
    text = "Nothing was done. Load the page again and repeat it there."
    return _tell(request, HTTPStatus.FORBIDDEN, "This form is too old, or came from elsewhere", text)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    said = str(exception or "")
    return _tell(request, HTTPStatus.FORBIDDEN, "This is not for your role", said or "Ask an administrator.")


def too_large(request: HttpRequest) -> HttpResponse:
    text = f"A file may have {MOST_BYTES // 1024**2} MB. Nothing was done; go back, and link to it instead."
    return _tell(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That is too large", text)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    text = "The plan may have changed, or the link was cut off. The timeline has every week."
    return _tell(request, HTTPStatus.NOT_FOUND, "There is nothing here", text)


def server_error(request: HttpRequest) -> HttpResponse:
    text = (
        "It is not known whether your last click was carried out; the page will tell once it answers again. "
        "The gateway does not need this dashboard: traffic keeps going where it goes."
    )
    if request.method == "POST" and request.path.endswith("/rollback/"):
        text += f" {ROLLBACK_BY_HAND}"
    return _tell(request, HTTPStatus.INTERNAL_SERVER_ERROR, "Something broke on our side", text)


def _tell(request: HttpRequest, status: HTTPStatus, title: str, text: str) -> HttpResponse:
    """A whole page; for htmx only the notice, which goes to the place for notices and never into a panel.

    For the API a problem.
    """
    if is_api(request):
        return Problem(status, _KINDS.get(status, "fault"), title, _FOR_SCRIPTS.get(status, text)).response()
    context = {"title": title, "text": text, "status": status.value}
    if request.headers.get("HX-Request") != "true":
        return HttpResponse(render_to_string("error.html", context), status=status)
    response = HttpResponse(render_to_string("error.html#notice", context), status=status)
    response["HX-Retarget"] = "#notices"
    response["HX-Reswap"] = "innerHTML"
    return response
