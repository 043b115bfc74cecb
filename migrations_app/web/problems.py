"""What the API answers when it does not do what was asked for: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, JsonResponse

API = "/api/"  # below it every answer is JSON


class Problem(Exception):
    """Ends a request with a problem. `kind` is the last part of its type; `more` is what it has beside the usual."""

    def __init__(self, status: HTTPStatus, kind: str, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail, self.more = status, kind, title, detail, more
        self.headers: dict[str, str] = {}

    def response(self) -> JsonResponse:
        told = {
            "type": f"urn:switchyard:{self.kind}",
            "title": self.title,
            "status": self.status.value,
            "detail": self.detail,
            **self.more,
        }
        return JsonResponse(
            told,
            encoder=DjangoJSONEncoder,
            status=self.status,
            content_type="application/problem+json",
            headers={"Cache-Control": "no-store", **self.headers},
        )


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API)
