"""Password hashes: scrypt with a salt of its own for each user, at a cost fit for a demo (about 3 ms)."""

import hashlib
import hmac

COST, BLOCK, LANES = 1024, 8, 1


def make(password: str, salt: bytes) -> str:
    """The text to store: `scrypt$cost$block$lanes$salt$hash`."""
    digest = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=LANES, dklen=32)
    return f"scrypt${COST}${BLOCK}${LANES}${salt.hex()}${digest.hex()}"


def holds(password: str, stored: str) -> bool:
    """Whether the password is the one of the stored text."""
    _, cost, block, lanes, salt, digest = stored.split("$")
    given = hashlib.scrypt(
        password.encode(errors="replace"),
        salt=bytes.fromhex(salt),
        n=int(cost),
        r=int(block),
        p=int(lanes),
        dklen=32,
    )
    return hmac.compare_digest(given.hex(), digest)


# Compared against when the user is unknown, so that the answer takes as long as for a known one.
NOBODY = make("nobody", b"nobody")
