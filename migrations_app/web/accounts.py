"""Signing in. Every sign-in is an audit event; of those that failed, one a minute for each name and source.

Its `failures` counts this one and those since the event before it (web/throttle.py).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind

from . import throttle


class SignIn(LoginView):
    template_name = "sign_in.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if wait := throttle.wait_for(self._name, address_of(request)):
            # The password is not even looked at: the answer must not tell whether it was right.
            return self._too_many(wait)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user, address = form.get_user(), address_of(self.request)
        if (wait := throttle.wait_of(address)) and not throttle.is_known(user):
            self._count()  # as if the password were wrong
            return self._too_many(wait)
        throttle.succeeded(self._name, address)
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            record(
                AuditKind.SIGNED_IN,
                actor=Actor.signed_in(user),
                subject=f"account {user.get_username()}",
                after={"address": address},
            )
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        wait = throttle.wait_of(address_of(self.request))
        self._count()
        if wait:
            return self._too_many(wait)
        response = self.render_to_response(self.get_context_data(form=form, typed=self._name))
        response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
        return response

    @property
    def _name(self) -> str:
        """As it was typed."""
        return self.request.POST.get("username", "")

    def _count(self) -> None:
        """Count a failure, and tell the audit log of it when it is time to."""
        address = address_of(self.request)
        throttle.failed(self._name, address)
        # A name that is no account is not kept: people type passwords into the wrong field.
        account = throttle.plain(self._name)
        known = "\x00" not in account and User.objects.filter(username=account).exists()
        subject = f"account {account}" if known else "an unknown account"
        if counted := throttle.to_tell(subject, address):
            with transaction.atomic():
                record(
                    AuditKind.SIGN_IN_FAILED,
                    actor=SYSTEM,
                    subject=subject,
                    after={"address": address, **counted},
                )

    def _too_many(self, wait: int) -> HttpResponse:
        """`wait`: seconds. The same for every name: which of them are accounts is nobody's to learn here."""
        context = self.get_context_data(form=AuthenticationForm(self.request), wait=wait, typed=self._name)
        response = self.render_to_response(context, status=HTTPStatus.TOO_MANY_REQUESTS)
        response["Retry-After"] = str(wait)
        return response


def address_of(request: HttpRequest) -> str:
    """The client's address as the server saw it; uvicorn puts a trusted proxy's client here."""
    return str(request.META.get("REMOTE_ADDR", ""))
