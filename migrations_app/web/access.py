"""Who may see what, and how a page may be kept by browsers."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django_htmx.http import HTMX_STOP_POLLING, HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from migrations_app.roles import Permission, who_may

from .bodies import is_too_large
from .errors import too_large
from .problems import is_api

P = ParamSpec("P")


class WebRequest(HttpRequest):
    """A request as the views get it, with django-htmx's details."""

    htmx: HtmxDetails


View = Callable[Concatenate[WebRequest, P], HttpResponseBase]


def requires(permission: Permission) -> Callable[[View[P]], View[P]]:
    """Answer 403, saying whom to ask, to an account without the permission."""

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(request: WebRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not may(request, permission):
                raise PermissionDenied(f"Your account may not see this. It is open to {who_may(permission)}.")
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def fresh(view: View[P]) -> View[P]:
    """Never kept by a browser, and a panel is never taken for the page: back, forward and reload ask again."""

    @wraps(view)
    def uncached(request: WebRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        add_never_cache_headers(response)
        patch_vary_headers(response, ["HX-Request"])
        return response

    return uncached


def may(request: HttpRequest, permission: Permission) -> bool:
    return request.user.has_perm(permission)


class SignInRequired(LoginRequiredMiddleware):
    """Sends an expired session to the sign-in page, also out of a request for a panel.

    A click goes there as a whole page. A page that refreshes itself stays: a half-written note is kept.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Refuse a body that is larger than any of ours. More than that is not stored of it either (web/bodies.py)."""
        return too_large(request) if is_too_large(request) else None

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        """The API goes by tokens: whose session a cookie names is not even looked up."""
        return None if is_api(request) else super().process_view(request, view_func, view_args, view_kwargs)

    def handle_no_permission(self, request: WebRequest, view_func: Callable[..., Any]) -> HttpResponseBase:  # type: ignore[override]
        if not request.htmx:
            return super().handle_no_permission(request, view_func)
        address = resolve_url(self.get_login_url(view_func))
        query = urlencode({self.redirect_field_name: request.htmx.current_url_abs_path or "/"})
        if request.method == "POST":
            return HttpResponseClientRedirect(f"{address}?{query}")
        response: HttpResponse = render(
            request, "parts/signed_out.html", {"sign_in": f"{address}?{query}"}, status=HTMX_STOP_POLLING
        )
        add_never_cache_headers(response)
        return response
