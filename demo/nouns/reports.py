"""Reports over this service's own copies, as JSON and as CSV."""

import csv
import io

from demo.store import Row
from demo.web import Answer, HttpError, Request, Route

REPORTS = {
    "sample-inventory": (
        "Samples by kind and state",
        """
        SELECT kind, status, count(*) AS samples, round(avg(concentration_ng_ul), 1)::float8 AS mean_ng_ul
        FROM samples GROUP BY kind, status ORDER BY kind, status
        """,
    ),
    "run-throughput": (
        "Runs and yield by instrument",
        """
        SELECT instrument, count(*) AS runs, count(*) FILTER (WHERE status = 'failed') AS failed,
        sum(sample_count) AS samples, sum(yield_mb) AS yield_mb
        FROM sequencing_runs GROUP BY instrument ORDER BY instrument
        """,
    ),
    "storage-utilisation": (
        "Use of each storage location",
        """
        SELECT name, zone, temperature_c, capacity, occupied, round(100.0 * occupied / capacity, 1)::float8 AS percent
        FROM storage_locations ORDER BY percent DESC, name
        """,
    ),
}


async def index(request: Request) -> Answer:
    """The reports there are."""
    items = [
        {"name": name, "title": title, "json": f"/reports/{name}", "csv": f"/reports/{name}.csv"}
        for name, (title, _) in REPORTS.items()
    ]
    return Answer({"source": request.source, "total": len(items), "items": items})


async def show(request: Request) -> Answer:
    """One report as JSON."""
    title, rows = await _rows(request)
    return Answer({"source": request.source, "name": request.params["name"], "title": title, "rows": rows})


async def download(request: Request) -> Answer:
    """One report as a CSV file."""
    _, rows = await _rows(request)
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    disposition = f'attachment; filename="{request.params["name"]}.csv"'
    return Answer(
        out.getvalue().encode(),
        content_type="text/csv; charset=utf-8; header=present",
        headers={"content-disposition": disposition},
    )


async def _rows(request: Request) -> tuple[str, list[Row]]:
    name = request.params["name"]
    if name not in REPORTS:
        raise HttpError(404, "not found", f"there is no report {name}; there are {', '.join(REPORTS)}")
    title, query = REPORTS[name]
    return title, await request.store.rows(query)


ROUTES: tuple[Route, ...] = (
    ("GET", "/reports", index),
    ("GET", "/reports/{name}", show),
    ("GET", "/reports/{name}.csv", download),
)
