"""`python -m demo.break_hash [USERNAME]`: spoil one password hash in auth's database, as a migration gone wrong would.

That user can no longer sign in on the new side. `python -m demo.migrate_users` mends it.
"""

import secrets
import sys

import psycopg
from psycopg.conninfo import make_conninfo

from demo import passwords
from demo.estate import MEMBERS, Settings, SettingsError

USERNAME = "bo.lind"  # not the account with which the checks sign in


def spoil(username: str, settings: Settings) -> bool:
    """Replace the hash by that of a password nobody knows. False when auth's database has no such user."""
    spoilt = passwords.make(secrets.token_hex(16), secrets.token_bytes(16))
    database = settings.database_name(MEMBERS["auth"])
    with psycopg.connect(make_conninfo(settings.database_url, dbname=database, connect_timeout=5)) as connection:
        done = connection.execute("UPDATE users SET password_hash = %s WHERE username = %s", (spoilt, username))
        return done.rowcount == 1


def main(arguments: list[str]) -> int:
    """Exit status 0 when a hash is spoilt, 1 when not, 2 for words that are not a command."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m demo.break_hash [USERNAME]")
        return 2
    username = arguments[0] if arguments else USERNAME
    try:
        done = spoil(username, Settings.for_command())
    except SettingsError as error:
        print(f"break_hash: {error}")
        return 1
    except psycopg.Error as error:
        print(f"break_hash: {str(error).strip() or type(error).__name__}")
        return 1
    if not done:
        print(f"break_hash: auth's database has no user {username}; `python -m demo.migrate_users` brings them")
        return 1
    print(f"break_hash: {username} has another password hash on the new side")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
