"""The part of docs/api.md that is made of the table of endpoints. A test holds the file to it."""

from __future__ import annotations

import re
from pathlib import Path

from migrations_app.roles import who_may

from .api import ENDPOINTS, JSON, Endpoint
from .problems import API

BEGIN, END = "<!-- made of web/api.py: begin -->", "<!-- made of web/api.py: end -->"
DOCS = Path(__file__).parents[2] / "docs" / "api.md"
EXAMPLES = {"key": "USE_AUTH_SERVICE", "number": "3"}


def markdown() -> str:
    """A table of all endpoints, and a call of each."""
    rows = [
        f"| `{one.method} {_shown(one)}` | {_fields(one)} | {who_may(one.wants)} | {one.about} |" for one in ENDPOINTS
    ]
    head = ["| call | body | who may | what it does |", "| --- | --- | --- | --- |"]
    return "\n".join([BEGIN, "", *head, *rows, "", "```sh", *map(_call, ENDPOINTS), "```", "", END])


def with_table(text: str) -> str:
    """A whole document with its part made anew."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: markdown(), text, flags=re.DOTALL)


def _shown(one: Endpoint) -> str:
    return API + re.sub(r"<\w+:(\w+)>", lambda match: match[1].upper(), one.route)


def _fields(one: Endpoint) -> str:
    if one.act is None:
        return "none"
    fields = one.body.model_fields.items()
    return ", ".join(f"`{name}`" + (" (required)" if field.is_required() else "") for name, field in fields)


def _call(one: Endpoint) -> str:
    address = API + re.sub(r"<\w+:(\w+)>", lambda match: EXAMPLES[match[1]], one.route)
    post = "" if one.act is None else " -X POST"
    body = f" -H 'Content-Type: {JSON}' -d '{one.example}'" if one.example else ""
    return f'curl -s{post} -H "Authorization: Bearer $TOKEN" "$DASHBOARD{address}"{body}'


def write() -> None:
    """Make the file anew: `manage.py shell -c "from migrations_app.web.api_docs import write; write()"`."""
    DOCS.write_text(with_table(DOCS.read_text()))
