"""Login, and the checking of tokens."""
# ruff: noqa: S608  the only thing put into the queries is USER, a constant

from demo import passwords
from demo.tokens import ISSUER, LIFETIME_S, TokenError, issue, verify
from demo.web import Answer, Request, Route, unauthorized

USER = "id, username, email, full_name, role, active, created_at"


async def summary(request: Request) -> Answer:
    """What this login provider is, and how many users it knows."""
    row = await request.store.row("SELECT count(*) AS users FROM users") or {}
    return Answer({"source": request.source, "issuer": ISSUER, "algorithm": "HS256", **row})


async def login(request: Request) -> Answer:
    """A token for a username or an e-mail address and its password. 401 does not say which of the two was wrong."""
    form = request.form()
    name = form.text("email" if form.raw("username") is None and form.raw("email") is not None else "username")
    password = form.text("password")
    form.check()
    user = await request.store.row(
        f"SELECT {USER}, password_hash FROM users WHERE username = lower(%s) OR email = lower(%s)", (name, name)
    )
    stored = user.pop("password_hash") if user else passwords.NOBODY
    if not passwords.holds(password, stored) or user is None or not user["active"]:
        raise unauthorized("the username or the password is wrong")
    token = issue(user["username"], user["role"], request.secret)
    return Answer(
        {
            "source": request.source,
            "token": token,
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            "user": user,
        }
    )


async def check(request: Request) -> Answer:
    """The claims of the token sent, whichever side issued it."""
    return Answer({"source": request.source, "valid": True, "claims": _claims(request)})


async def me(request: Request) -> Answer:
    """The user of the token sent, from this side's own users."""
    name = _claims(request)["sub"]
    user = await request.store.row(f"SELECT {USER} FROM users WHERE username = %s", (name,))
    if user is None:
        raise unauthorized(f"the token holds, but {request.source} has no user {name}")
    return Answer({"source": request.source, "item": user})


def _claims(request: Request) -> dict[str, object]:
    token = request.bearer()
    if token is None:
        raise unauthorized("no bearer token was sent")
    try:
        return verify(token, request.secret)
    except TokenError as error:
        raise unauthorized(str(error)) from None


ROUTES: tuple[Route, ...] = (
    ("GET", "/auth", summary),
    ("POST", "/auth/login", login),
    ("GET", "/auth/verify", check),
    ("POST", "/auth/verify", check),
    ("GET", "/auth/me", me),
)
