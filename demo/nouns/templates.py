"""Templates of the sheets that laboratories fill in."""

import json

from demo.lists import created, one, page
from demo.web import Answer, HttpError, Request, Route, storable

TABLE = "templates"
KINDS = ("DNA", "RNA", "library", "plasmid")


async def index(request: Request) -> Answer:
    """All templates."""
    return await page(request, TABLE)


async def show(request: Request) -> Answer:
    """One template."""
    return await one(request, TABLE)


async def create(request: Request) -> Answer:
    """Add a template: name, kind and the names of its columns."""
    actor = request.actor()
    form = request.form()
    name = form.text("name")
    kind = form.choice("kind", KINDS, default="DNA")
    columns = form.raw("columns")
    form.check()
    if not isinstance(columns, list) or not columns or not all(isinstance(c, str) and storable(c) for c in columns):
        raise HttpError(422, "unprocessable", {"columns": "must be a list of column names"})
    row = await request.store.row(
        "INSERT INTO templates (name, kind, version, columns, created_by) VALUES (%s, %s, 1, %s, %s) RETURNING *",
        (name, kind, json.dumps(columns), actor),
    )
    return created(request, row)


ROUTES: tuple[Route, ...] = (
    ("GET", "/templates", index),
    ("POST", "/templates", create),
    ("GET", "/templates/{id}", show),
)
