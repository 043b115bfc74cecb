"""The files that came with sign-offs, handed out so that no browser takes one for a page of ours."""

from __future__ import annotations

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_safe

from migrations_app.actions.evidence import download
from migrations_app.models import Evidence
from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def evidence(_request: WebRequest, evidence_id: int) -> HttpResponseBase:
    """Always a download, never a page: whoever uploaded it is not whom the reader trusts."""
    file = download(get_object_or_404(Evidence, pk=evidence_id))
    response = HttpResponse(file.content, content_type=file.content_type)
    response["Content-Disposition"] = content_disposition_header(True, file.name) or "attachment"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
