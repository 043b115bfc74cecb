"""What every page shows around its own content, for pages that refresh nothing else."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from migrations_app.roles import Permission

from .access import WebRequest, fresh, requires


@require_safe
@requires(Permission.VIEW_PLAN)
@fresh
def live(request: WebRequest) -> HttpResponseBase:
    return render(request, "parts/overrides.html", {"oob": True})
