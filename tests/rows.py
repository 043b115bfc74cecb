"""The rows of a database that was just made, brought back after each test with real commits.

Django empties every table and makes its permissions anew each time: 220 ms of processor time. Most tables are empty
anyhow, and the rest is here in a tenth of that.
"""

from __future__ import annotations

from django.db import connection
from psycopg import sql

# Writers that a test has left behind are waited for. Rows go without triggers: the audit log lets none go, and the
# tables refer to each other. A partitioned table, which may have many, is emptied whole.
BRING_BACK = """
CREATE FUNCTION first_rows.bring_back(every text[], kept text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one text;
    filled boolean;
BEGIN
    EXECUTE (SELECT format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', string_agg(quote_ident(t), ', '))
             FROM unnest(every) AS t);
    SET LOCAL session_replication_role = replica;
    FOREACH one IN ARRAY every LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', one) INTO filled;
        IF filled AND EXISTS (SELECT FROM pg_class WHERE oid = quote_ident(one)::regclass AND relkind = 'p') THEN
            EXECUTE format('TRUNCATE %I', one);
        ELSIF filled THEN
            EXECUTE format('DELETE FROM %I', one);
        END IF;
    END LOOP;
    FOREACH one IN ARRAY kept LOOP
        EXECUTE format('INSERT INTO public.%I TABLE first_rows.%I', one, one);
    END LOOP;
    SET LOCAL session_replication_role = origin;
END $$
"""


def keep_first_rows() -> None:
    """Copy what there is into a schema of its own."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS first_rows CASCADE")
        cursor.execute("CREATE SCHEMA first_rows")
        for table in _tables():
            cursor.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table)))
            if cursor.fetchone()[0]:
                copy = sql.SQL("CREATE TABLE {} AS TABLE {}")
                cursor.execute(copy.format(sql.Identifier("first_rows", table), sql.Identifier(table)))
        cursor.execute(BRING_BACK)


def bring_back_first_rows() -> None:
    """All other rows are gone after it. Sequences go on."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'first_rows'")
        kept = [table for (table,) in cursor.fetchall()]
        cursor.execute("SELECT first_rows.bring_back(%s, %s)", [_tables(), kept])


def _tables() -> list[str]:
    return sorted(connection.introspection.django_table_names(only_existing=True, include_views=False))
