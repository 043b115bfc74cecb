"""Freezers, fridges and shelves."""

from demo.lists import created, one, page
from demo.web import Answer, Request, Route

TABLE = "storage_locations"


async def summary(request: Request) -> Answer:
    """Places and how full they are, by zone."""
    zones = await request.store.rows(
        "SELECT zone, temperature_c, count(*) AS locations, sum(capacity) AS capacity, sum(occupied) AS occupied"
        " FROM storage_locations GROUP BY zone, temperature_c ORDER BY temperature_c"
    )
    return Answer({"source": request.source, "zones": zones})


async def index(request: Request) -> Answer:
    """All locations; `?zone=` for one kind of them."""
    zone = request.query("zone")
    return await page(request, TABLE, where="zone = %s" if zone else "true", values=(zone,) if zone else ())


async def show(request: Request) -> Answer:
    """One location."""
    return await one(request, TABLE)


async def create(request: Request) -> Answer:
    """Add a location."""
    request.actor()
    form = request.form()
    name = form.text("name")
    zone = form.choice("zone", ("freezer", "fridge", "room"), default="freezer")
    temperature = form.number("temperature_c", low=-196, high=60)
    capacity = form.number("capacity", low=1, high=100_000)
    form.check()
    row = await request.store.row(
        "INSERT INTO storage_locations (name, zone, temperature_c, capacity, occupied) VALUES (%s, %s, %s, %s, 0)"
        " RETURNING *",
        (name, zone, temperature, capacity),
    )
    return created(request, row)


ROUTES: tuple[Route, ...] = (
    ("GET", "/storage", summary),
    ("GET", "/storage/locations", index),
    ("POST", "/storage/locations", create),
    ("GET", "/storage/locations/{id}", show),
)
