"""How PostgreSQL would answer a statement of ours, for tests that a long table is not read as a whole."""

from __future__ import annotations

from typing import Any

import psycopg


class Explained:
    """For `connection.execute_wrapper`: asks for the plan of each statement before it is run. `plan` is the last."""

    plan = ""

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        with psycopg.ClientCursor(context["connection"].connection) as cursor:
            cursor.execute(f"EXPLAIN {sql}", params)
            self.plan = "\n".join(row[0] for row in cursor.fetchall())
        return execute(sql, params, many, context)
