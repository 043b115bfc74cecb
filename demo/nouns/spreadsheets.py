"""CSV files that laboratories upload, and the report on what is in them."""

import json

from demo.lists import created, one, page
from demo.sheets import SheetError, report_on
from demo.web import Answer, HttpError, Request, Route, storable

TABLE = "spreadsheets"


async def index(request: Request) -> Answer:
    """All uploads with their reports."""
    return await page(request, TABLE)


async def show(request: Request) -> Answer:
    """One upload with its report."""
    return await one(request, TABLE)


async def upload(request: Request) -> Answer:
    """Read a CSV file: the body itself with `?name=`, or a JSON object with `name` and `content`."""
    actor = request.actor()
    if request.headers.get("content-type", "").startswith("application/json"):
        form = request.form()
        name, text = form.text("name"), form.text("content", longest=5_000_000)
        form.check()
    else:
        name, text = request.query("name") or "upload.csv", _text(request.body)
    if not storable(name + text) or len(name) > 200:
        raise HttpError(422, "unprocessable", {"body": "the name or the file holds what cannot be stored"})
    try:
        report = report_on(text)
    except SheetError as error:
        raise HttpError(422, "unprocessable", {"body": str(error)}) from None
    row = await request.store.row(
        "INSERT INTO spreadsheets (name, row_count, column_count, report, created_by) VALUES (%s, %s, %s, %s, %s)"
        " RETURNING *",
        (name, report["rows"], len(report["columns"]), json.dumps(report), actor),
    )
    return created(request, row)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise HttpError(422, "unprocessable", {"body": f"is not UTF-8 at byte {error.start}"}) from None


ROUTES: tuple[Route, ...] = (
    ("GET", "/spreadsheets", index),
    ("POST", "/spreadsheets", upload),
    ("GET", "/spreadsheets/{id}", show),
)
