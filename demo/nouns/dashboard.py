"""Key figures of the laboratory, computed from this service's own copies."""

from demo.web import Answer, Request, Route

FIGURES = """
SELECT
  (SELECT count(*) FROM samples) AS samples,
  (SELECT count(*) FROM samples WHERE status = 'completed') AS samples_completed,
  (SELECT count(*) FROM samples WHERE status = 'rejected') AS samples_rejected,
  (SELECT count(*) FROM sequencing_runs WHERE status = 'running') AS runs_running,
  (SELECT count(*) FROM sequencing_runs WHERE status = 'queued') AS runs_queued,
  (SELECT count(*) FROM notifications WHERE NOT read) AS notifications_unread
"""
KPIS = """
SELECT
  (SELECT round(100.0 * count(*) FILTER (WHERE status = 'completed')
     / nullif(count(*) FILTER (WHERE status IN ('completed', 'failed')), 0), 1)::float8 FROM sequencing_runs)
     AS run_success_percent,
  (SELECT round(avg(extract(epoch FROM finished_at - started_at) / 3600), 1)::float8 FROM sequencing_runs)
     AS run_hours_mean,
  (SELECT round(100.0 * sum(occupied) / nullif(sum(capacity), 0), 1)::float8 FROM storage_locations)
     AS storage_used_percent,
  (SELECT round(100.0 * count(*) FILTER (WHERE status = 'rejected') / nullif(count(*), 0), 1)::float8 FROM samples)
     AS sample_rejection_percent,
  (SELECT coalesce(sum(yield_mb), 0)::float8 / 1000 FROM sequencing_runs) AS yield_gb
"""


async def summary(request: Request) -> Answer:
    """Counts and key figures together."""
    figures = await request.store.row(FIGURES)
    return Answer({"source": request.source, "metrics": figures, "kpis": await request.store.row(KPIS)})


async def metrics(request: Request) -> Answer:
    """Counts."""
    return Answer({"source": request.source, "metrics": await request.store.row(FIGURES)})


async def kpis(request: Request) -> Answer:
    """Key figures: percentages 0-100, hours, gigabases."""
    return Answer({"source": request.source, "kpis": await request.store.row(KPIS)})


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard", summary),
    ("GET", "/dashboard/metrics", metrics),
    ("GET", "/dashboard/kpis", kpis),
)
