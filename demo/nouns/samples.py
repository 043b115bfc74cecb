"""Samples of the laboratory."""

from demo.lists import created, one, page
from demo.web import Answer, Request, Route

TABLE = "samples"
KINDS = ("DNA", "RNA", "library", "plasmid")


async def index(request: Request) -> Answer:
    """All samples; `?status=` for those in one state."""
    status = request.query("status")
    return await page(request, TABLE, where="status = %s" if status else "true", values=(status,) if status else ())


async def show(request: Request) -> Answer:
    """One sample."""
    return await one(request, TABLE)


async def create(request: Request) -> Answer:
    """Submit a sample. A barcode that is known already is a conflict (409)."""
    actor = request.actor()
    form = request.form()
    barcode = form.text("barcode", longest=40)
    name = form.text("name")
    kind = form.choice("kind", KINDS, default="DNA")
    concentration = form.number("concentration_ng_ul", low=0, high=10_000, default=0)
    form.check()
    row = await request.store.row(
        "INSERT INTO samples (barcode, name, kind, status, concentration_ng_ul, submitted_by)"
        " VALUES (%s, %s, %s, 'submitted', %s, %s) RETURNING *",
        (barcode, name, kind, concentration, actor),
    )
    return created(request, row)


ROUTES: tuple[Route, ...] = (
    ("GET", "/samples", index),
    ("POST", "/samples", create),
    ("GET", "/samples/{id}", show),
)
