"""Messages to users."""

from demo.lists import created, found, one, page
from demo.web import Answer, Request, Route

TABLE = "notifications"
CHANNELS = ("email", "in_app", "slack")


async def index(request: Request) -> Answer:
    """All messages; `?unread=1` for those not read yet."""
    unread = request.query("unread") in {"1", "true"}
    return await page(request, TABLE, where="NOT read" if unread else "true")


async def show(request: Request) -> Answer:
    """One message."""
    return await one(request, TABLE)


async def create(request: Request) -> Answer:
    """Send a message."""
    actor = request.actor()
    form = request.form()
    title = form.text("title")
    body = form.text("body", longest=5000)
    channel = form.choice("channel", CHANNELS, default="in_app")
    recipient = form.text("recipient", default=actor)
    form.check()
    row = await request.store.row(
        "INSERT INTO notifications (title, body, channel, recipient, created_by) VALUES (%s, %s, %s, %s, %s)"
        " RETURNING *",
        (title, body, channel, recipient, actor),
    )
    return created(request, row)


async def mark_read(request: Request) -> Answer:
    """Mark one message as read."""
    request.actor()
    row = await request.store.row(
        "UPDATE notifications SET read = true WHERE id = %s RETURNING *", (int(request.params["id"]),)
    )
    return Answer({"source": request.source, "item": found(row, request)})


ROUTES: tuple[Route, ...] = (
    ("GET", "/notifications", index),
    ("POST", "/notifications", create),
    ("GET", "/notifications/{id}", show),
    ("POST", "/notifications/{id}/read", mark_read),
)
