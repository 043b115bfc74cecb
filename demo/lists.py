"""What the nouns share: a page of a table's rows, one row by its id, and the answer to a new one.

Tables and conditions are constants of the nouns; what a client sends travels as values only.
"""
# ruff: noqa: S608

from demo.store import Row
from demo.web import Answer, HttpError, Request


async def page(request: Request, table: str, *, where: str = "true", values: tuple[object, ...] = ()) -> Answer:
    """{"source", "total", "items"}, newest first."""
    limit, offset = request.page()
    total = await request.store.row(f"SELECT count(*) AS total FROM {table} WHERE {where}", values)
    items = await request.store.rows(
        f"SELECT * FROM {table} WHERE {where} ORDER BY id DESC LIMIT %s OFFSET %s", (*values, limit, offset)
    )
    return Answer({"source": request.source, "total": total["total"] if total else 0, "items": items})


async def one(request: Request, table: str) -> Answer:
    """{"source", "item"}. Raises 404."""
    row = await request.store.row(f"SELECT * FROM {table} WHERE id = %s", (int(request.params["id"]),))
    return Answer({"source": request.source, "item": found(row, request)})


def created(request: Request, row: Row | None) -> Answer:
    """201 with the new row. No `location`: a service does not know the path that the gateway took away."""
    return Answer({"source": request.source, "item": found(row, request)}, status=201)


def found(row: Row | None, request: Request) -> Row:
    """The row. Raises 404 when there is none."""
    if row is None:
        raise HttpError(404, "not found", f"nothing with this id at {request.path}")
    return row
