"""Browsers without a browser: Django's test client, signed in as each role."""

from __future__ import annotations

import html
import re

import pytest
from django.core.cache import cache
from django.test import Client

from migrations_app.choices import Phase
from migrations_app.models import Prerequisite
from migrations_app.roles import Role
from tests.factories import PASSWORD

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def _quick(settings):
    """No worker runs beside these tests: the web process reconciles at once."""
    settings.WORKER_HEAD_START = 0
    settings.CONFIRM_WITHIN = 1.0
    settings.CELERY_BROKER_URL = ""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()


@pytest.fixture
def clients(plan, people):
    """Role -> a client that is signed in as that role."""
    found = {}
    for role, actor in people.items():
        found[role] = Client()
        found[role].force_login(actor.account)
    return found


@pytest.fixture
def manager(clients):
    return clients[Role.RELEASE_MANAGER]


@pytest.fixture
def support(clients):
    return clients[Role.SUPPORT]


@pytest.fixture
def password():
    return PASSWORD


def text_of(response) -> str:
    """What a person reads: without tags, entities undone, white space squeezed."""
    content = re.sub(r"<(script|style|title)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", content)))


def lines_of(number: int) -> int:
    """How many prerequisites the plan gives a week: the plan may grow, what the pages promise stays."""
    return Prerequisite.objects.filter(week__number=number, phase=Phase.START).count()


def fields(response, action: str) -> dict[str, str]:
    """The hidden fields of the form that posts to `action`, as the page has them."""
    form = re.search(
        rf'<form[^>]*method="post"[^>]*action="{re.escape(action)}".*?</form>', response.content.decode(), re.DOTALL
    )
    assert form, f"no form posts to {action}"
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0]))
