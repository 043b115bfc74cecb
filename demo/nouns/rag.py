"""Search in protocol notes: PostgreSQL's full-text search, ranked."""

from demo.lists import one, page
from demo.web import Answer, HttpError, Request, Route

TABLE = "rag_documents"


async def summary(request: Request) -> Answer:
    """Documents by topic."""
    topics = await request.store.rows(
        "SELECT topic, count(*) AS documents FROM rag_documents GROUP BY topic ORDER BY topic"
    )
    return Answer({"source": request.source, "topics": topics})


async def index(request: Request) -> Answer:
    """All documents."""
    return await page(request, TABLE)


async def show(request: Request) -> Answer:
    """One document."""
    return await one(request, TABLE)


async def search(request: Request) -> Answer:
    """The ten best documents for `?q=`, best first."""
    words = request.query("q")
    if not words or not words.strip():
        raise HttpError(422, "unprocessable", {"q": "is required"})
    items = await request.store.rows(
        "WITH asked AS (SELECT websearch_to_tsquery('english', %s) AS query),"
        " ranked AS (SELECT id, title, topic, body,"
        " round(ts_rank(to_tsvector('english', title || ' ' || body), query)::numeric, 4)::float8 AS score"
        " FROM rag_documents, asked WHERE to_tsvector('english', title || ' ' || body) @@ query)"
        " SELECT * FROM ranked ORDER BY score DESC, id LIMIT 10",
        (words[:500],),
    )
    return Answer({"source": request.source, "query": words, "items": items})


ROUTES: tuple[Route, ...] = (
    ("GET", "/rag", summary),
    ("GET", "/rag/documents", index),
    ("GET", "/rag/documents/{id}", show),
    ("GET", "/rag/search", search),
)
