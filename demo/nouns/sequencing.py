"""Sequencing runs."""

from demo.lists import created, one, page
from demo.web import Answer, Request, Route

TABLE = "sequencing_runs"
INSTRUMENTS = ("NovaSeq 6000", "NextSeq 2000", "MinION Mk1B", "PromethION 24")


async def summary(request: Request) -> Answer:
    """Runs by state."""
    states = await request.store.rows(
        "SELECT status, count(*) AS runs, sum(yield_mb) AS yield_mb FROM sequencing_runs"
        " GROUP BY status ORDER BY status"
    )
    return Answer({"source": request.source, "states": states})


async def index(request: Request) -> Answer:
    """All runs; `?status=` for those in one state."""
    status = request.query("status")
    return await page(request, TABLE, where="status = %s" if status else "true", values=(status,) if status else ())


async def show(request: Request) -> Answer:
    """One run."""
    return await one(request, TABLE)


async def create(request: Request) -> Answer:
    """Queue a run."""
    request.actor()
    form = request.form()
    name = form.text("name")
    instrument = form.choice("instrument", INSTRUMENTS, default="MinION Mk1B")
    flow_cell = form.text("flow_cell", longest=40)
    samples = form.number("sample_count", low=1, high=384)
    form.check()
    row = await request.store.row(
        "INSERT INTO sequencing_runs (name, instrument, flow_cell, status, sample_count, yield_mb)"
        " VALUES (%s, %s, %s, 'queued', %s, 0) RETURNING *",
        (name, instrument, flow_cell, samples),
    )
    return created(request, row)


ROUTES: tuple[Route, ...] = (
    ("GET", "/sequencing", summary),
    ("GET", "/sequencing/runs", index),
    ("POST", "/sequencing/runs", create),
    ("GET", "/sequencing/runs/{id}", show),
)
