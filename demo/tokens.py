"""JSON Web Tokens, HS256 only. Monolith and auth service share the secret, so each accepts the other's tokens."""

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

ISSUER = "tracseq"
LIFETIME_S = 3600


class TokenError(Exception):
    """The token does not hold; the text says why."""


def issue(subject: str, role: str, secret: str, *, now: float | None = None, lifetime: int = LIFETIME_S) -> str:
    """A signed token with the claims sub, role, iat, exp and iss. `lifetime` is in seconds."""
    issued = int(time.time() if now is None else now)
    claims = {"sub": subject, "role": role, "iat": issued, "exp": issued + lifetime, "iss": ISSUER}
    signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
    return f"{signed}.{_sign(signed, secret)}"


def verify(token: str, secret: str, *, now: float | None = None) -> dict[str, Any]:
    """The claims of a token that holds. Raises TokenError."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise TokenError("the token is malformed")
    # The algorithm is ours to choose, never the token's: "none" and public-key tricks end here.
    if _decode(parts[0]).get("alg") != "HS256":
        raise TokenError("the token is not signed with HS256")
    if not hmac.compare_digest(parts[2], _sign(f"{parts[0]}.{parts[1]}", secret)):
        raise TokenError("the token's signature is wrong")
    claims = _decode(parts[1])
    expires = claims.get("exp")
    if not isinstance(expires, int) or isinstance(expires, bool):
        raise TokenError("the token has no expiry")
    if expires <= (time.time() if now is None else now):
        raise TokenError("the token has expired")
    if claims.get("iss") != ISSUER or not isinstance(claims.get("sub"), str):
        raise TokenError("the token is not one of TracSeq's")
    return claims


def _encode(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _decode(part: str) -> dict[str, Any]:
    try:
        value = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        raise TokenError("the token is malformed") from None
    if not isinstance(value, dict):
        raise TokenError("the token is malformed")
    return value


def _sign(text: str, secret: str) -> str:
    digest = hmac.digest(secret.encode(), text.encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
