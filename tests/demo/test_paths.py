"""What operators and users type, on both sides."""

import asyncio
import csv
import io
import socket
import subprocess
import threading

import psycopg
import pytest

from demo.estate import MEMBERS, SERVICES
from demo.store import DEADLINE_S, Store, StoreUnavailable
from demo.web import BODY_LIMIT
from tests.demo.clock import Clock
from tests.demo.conftest import Estate

# Service, its path; the monolith has the same under /api.
SAME_ON_BOTH_SIDES = [
    ("notification", "/notifications"),
    ("notification", "/notifications?unread=1&limit=5&offset=2"),
    ("notification", "/notifications/7"),
    ("storage", "/storage"),
    ("storage", "/storage/locations"),
    ("storage", "/storage/locations?zone=fridge"),
    ("storage", "/storage/locations/3"),
    ("rag", "/rag"),
    ("rag", "/rag/documents?limit=500"),
    ("rag", "/rag/documents/4"),
    ("rag", "/rag/search?q=thaw+aliquots"),
    ("template", "/templates"),
    ("template", "/templates/1"),
    ("sample", "/samples?limit=500"),
    ("sample", "/samples?status=rejected"),
    ("sample", "/samples/200"),
    ("sequencing", "/sequencing"),
    ("sequencing", "/sequencing/runs?limit=500"),
    ("sequencing", "/sequencing/runs/60"),
]
# Service, path, table, body: each makes one row.
NEW_ROWS = [
    ("notification", "/notifications", "notifications", {"title": "Hi", "body": "There"}),
    ("storage", "/storage/locations", "storage_locations", {"name": "Box", "temperature_c": -20, "capacity": 9}),
    ("template", "/templates", "templates", {"name": "Plate", "columns": ["well", "barcode"]}),
    ("sample", "/samples", "samples", {"barcode": "NEW-1", "name": "New", "kind": "RNA"}),
    ("sequencing", "/sequencing/runs", "sequencing_runs", {"name": "NEW", "flow_cell": "F1", "sample_count": 2}),
]


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout


@pytest.mark.parametrize("name", MEMBERS)
def test_health_says_service_status_and_database(estate: Estate, name: str) -> None:
    answer = estate.get(name, "/health")
    assert answer.status_code == 200
    expected = {"service": MEMBERS[name].served_by, "status": "healthy", "database": "up"}
    assert answer.json() == expected | {"side": MEMBERS[name].side}
    assert curl(estate.url(name, "/health")) == answer.text


@pytest.mark.parametrize(("name", "path"), SAME_ON_BOTH_SIDES)
def test_both_sides_have_the_same_data_and_say_who_answered(estate: Estate, name: str, path: str) -> None:
    old, new = estate.get("monolith", f"/api{path}"), estate.get(name, path)
    assert (old.status_code, new.status_code) == (200, 200)
    assert (old.headers["x-served-by"], old.headers["x-side"]) == ("monolith", "monolith")
    assert (new.headers["x-served-by"], new.headers["x-side"]) == (f"{name}-service", "service")
    before, after = old.json(), new.json()
    assert (before.pop("source"), after.pop("source")) == ("monolith", f"{name}-service")
    assert before == after
    assert before.get("items", True), "there is nothing to compare"


def test_the_commands_of_the_operators_work_as_they_type_them(estate: Estate) -> None:
    port = estate.settings.port(MEMBERS["monolith"])
    for path in ("notifications", "storage/locations", "rag/health", "templates", "samples", "sequencing"):
        assert '"error"' not in curl("-f", f"localhost:{port}/api/{path}")
    login = '{"username":"ana.silva","password":"tracseq-demo"}'
    assert '"token":"ey' in curl("-f", "-X", "POST", f"localhost:{port}/api/auth/login", "-d", login)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_answers_its_own_paths_and_no_others(estate: Estate, service) -> None:
    noun = service.nouns[0]
    assert estate.get(service.name, f"/{noun}").status_code == 200
    assert estate.get(service.name, f"/{noun}/health").json()["status"] == "healthy"
    for path in (f"/api/{noun}", "/", "/nothing", f"/{noun}/0", f"/{noun}x"):
        answer = estate.get(service.name, path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not found")
        assert answer.headers["x-served-by"] == f"{service.name}-service"


@pytest.mark.parametrize("noun", ["dashboard", "reports", "spreadsheets"])
def test_the_monolith_never_had_the_services_of_week_five(estate: Estate, noun: str) -> None:
    for path in (f"/api/{noun}", f"/api/{noun}/1"):
        answer = estate.get("monolith", path)
        assert answer.status_code == 404
        assert "exists only as a service" in answer.json()["detail"]
        assert answer.headers["x-side"] == "monolith"


@pytest.mark.parametrize("side", ["monolith", "service"])
@pytest.mark.parametrize("new", NEW_ROWS, ids=lambda new: new[2])
def test_a_new_row_can_be_read_again(estate: Estate, side: str, new: tuple[str, str, str, dict]) -> None:
    name, path, table, body = new
    member, whole = ("monolith", f"/api{path}") if side == "monolith" else (name, path)
    total = estate.get(member, whole).json()["total"]
    answer = estate.post(member, whole, json=body)
    assert answer.status_code == 201, answer.text
    item = answer.json()["item"]
    try:
        assert {key: item[key] for key in body} == body
        assert estate.get(member, f"{whole}/{item['id']}").json()["item"] == item
        assert estate.get(member, whole).json()["total"] == total + 1
    finally:
        estate.query(member, f"DELETE FROM {table} WHERE id = {item['id']}")


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, *_ in NEW_ROWS])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b"\xff", b'{"name": "\\u0000"}', b'{"a":' * 100_000])
def test_a_bad_body_is_refused_with_reasons(estate: Estate, name: str, path: str, body: bytes) -> None:
    answer = estate.post(name, path, content=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "unprocessable")
    assert answer.json()["detail"]


def test_a_barcode_is_taken_once(estate: Estate) -> None:
    known = estate.get("sample", "/samples/1").json()["item"]["barcode"]
    answer = estate.post("sample", "/samples", json={"barcode": known, "name": "Twin"})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")


def test_text_that_the_database_cannot_hold_is_refused(estate: Estate) -> None:
    for text in ("\\u0000", "\\ud800"):
        body = f'{{"barcode": "X{text}", "name": "n"}}'
        assert estate.post("sample", "/samples", content=body).status_code == 422
    assert estate.get("sample", "/samples?status=%00").status_code == 422
    assert estate.get("rag", "/rag/search?q=%00").status_code == 422
    assert estate.get("rag", "/rag/search").status_code == 422


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=", "offset=-1", "limit=%D9%A1"])
def test_a_page_that_makes_no_sense_is_refused(estate: Estate, query: str) -> None:
    assert estate.get("sample", f"/samples?{query}").status_code == 422


def test_other_methods_and_too_much_are_refused(estate: Estate) -> None:
    answer = estate.client.delete(estate.url("sample", "/samples"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert estate.post("sample", "/samples", content=b"x" * (BODY_LIMIT + 1)).status_code == 413
    head = estate.client.head(estate.url("sample", "/samples"))
    assert (head.status_code, head.content, head.headers["x-side"]) == (200, b"", "service")


def test_a_message_can_be_marked_as_read(estate: Estate) -> None:
    unread = estate.get("notification", "/notifications?unread=1").json()["items"][0]["id"]
    assert estate.post("notification", f"/notifications/{unread}/read").json()["item"]["read"] is True
    assert estate.get("notification", f"/notifications/{unread}").json()["item"]["read"] is True
    assert estate.post("notification", "/notifications/99999/read").status_code == 404
    estate.query("notification", f"UPDATE notifications SET read = false WHERE id = {unread}")


def test_search_ranks_and_filters(estate: Estate) -> None:
    found = estate.get("rag", "/rag/search?q=thaw").json()["items"]
    assert found
    assert all("thaw" in item["body"] for item in found)
    assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
    assert estate.get("rag", "/rag/search?q=zebra").json()["items"] == []


def test_the_dashboard_counts_its_own_copies(estate: Estate) -> None:
    metrics = estate.get("dashboard", "/dashboard/metrics").json()["metrics"]
    for table, figure in (("samples", "samples"), ("notifications WHERE NOT read", "notifications_unread")):
        assert metrics[figure] == estate.query("dashboard", f"SELECT count(*) FROM {table}")[0][0] > 0
    kpis = estate.get("dashboard", "/dashboard/kpis").json()["kpis"]
    ended = estate.query("dashboard", "SELECT status FROM sequencing_runs WHERE status IN ('completed', 'failed')")
    assert kpis["run_success_percent"] == round(100 * ended.count(("completed",)) / len(ended), 1)
    assert 0 < kpis["storage_used_percent"] < 100


@pytest.mark.parametrize("name", ["sample-inventory", "run-throughput", "storage-utilisation"])
def test_a_report_is_the_same_as_json_and_as_csv(estate: Estate, name: str) -> None:
    assert name in [item["name"] for item in estate.get("reports", "/reports").json()["items"]]
    rows = estate.get("reports", f"/reports/{name}").json()["rows"]
    answer = estate.get("reports", f"/reports/{name}.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert read == [{key: str(value) for key, value in row.items()} for row in rows]
    assert read
    assert estate.get("reports", "/reports/nothing").status_code == 404


def test_an_upload_is_read_and_reported_on(estate: Estate) -> None:
    sheet = "barcode,amount\nA,1\nB,2.5\nC\nB,\n"
    answer = estate.post("spreadsheet", "/spreadsheets?name=a.csv", content=sheet, headers={"content-type": "text/csv"})
    assert answer.status_code == 201, answer.text
    item = answer.json()["item"]
    assert (item["name"], item["row_count"], item["column_count"]) == ("a.csv", 4, 2)
    assert item["report"]["columns"] == [
        {"name": "barcode", "type": "text", "empty": 0, "distinct": 2},
        {"name": "amount", "type": "number", "empty": 1, "distinct": 2},
    ]
    assert item["report"]["errors"] == [{"row": 4, "error": "has 1 columns instead of 2"}]
    same = estate.post("spreadsheet", "/spreadsheets", json={"name": "a.csv", "content": sheet}).json()["item"]
    assert same["report"] == item["report"]
    assert estate.get("spreadsheet", f"/spreadsheets/{item['id']}").json()["item"] == item


@pytest.mark.parametrize("body", [b"", b"a,,b\n1,2,3", b"a,a\n1,2", b'a,b\n"1', b"\xff\xfe"])
def test_what_is_no_table_is_refused(estate: Estate, body: bytes) -> None:
    answer = estate.post("spreadsheet", "/spreadsheets", content=body)
    assert (answer.status_code, list(answer.json()["detail"])) == (422, ["body"])


def test_many_at_once_are_all_answered(estate: Estate) -> None:
    statuses: list[int] = []

    def read() -> None:
        statuses.extend(estate.get("storage", "/storage/locations").status_code for _ in range(10))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 200


def test_health_fails_with_its_database_and_heals_with_it(estate: Estate) -> None:
    database = estate.settings.database_name(MEMBERS["storage"])
    with psycopg.connect(estate.settings.database_url, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
        try:
            health = estate.get("storage", "/health")
            assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
            assert health.headers["x-served-by"] == "storage-service"
            answer = estate.get("storage", "/storage/locations")
            assert (answer.status_code, answer.json()["error"]) == (503, "database unavailable")
            assert estate.get("monolith", "/api/storage/locations").status_code == 200
        finally:
            server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    assert estate.get("storage", "/health").status_code == 200
    assert estate.get("storage", "/storage/locations").status_code == 200


def test_a_database_that_hangs_is_said_to_be_down_in_time(estate: Estate) -> None:
    database = estate.settings.database_name(MEMBERS["template"])
    estate.get("template", "/templates")
    with psycopg.connect(estate.settings.database_url, dbname=database) as locker:
        locker.execute("LOCK TABLE templates, demo_seed IN ACCESS EXCLUSIVE MODE")
        answer = estate.get("template", "/health")
        assert answer.status_code == 503
        # Whichever of the two deadlines is first: the one that the server was given, or the client's own.
        assert answer.json()["database"] in {
            "down: canceling statement due to statement timeout",
            f"down: no answer within {DEADLINE_S} s",
        }
    assert estate.get("template", "/health").status_code == 200


def test_a_query_waits_for_its_database_no_longer_than_the_deadline(seeded: Estate) -> None:
    database = seeded.settings.database_name(MEMBERS["template"])
    clock = Clock()
    store = Store(seeded.settings.database_url, database)

    async def give_up() -> float:
        began = clock.time()
        with pytest.raises(StoreUnavailable, match=f"no answer within {DEADLINE_S} s"):
            await store.rows("SELECT 1 FROM templates")
        return clock.time() - began

    with (
        psycopg.connect(seeded.settings.database_url, dbname=database) as locker,
        asyncio.Runner(loop_factory=lambda: clock) as runner,
    ):
        locker.execute("LOCK TABLE templates IN ACCESS EXCLUSIVE MODE")
        assert runner.run(store.row("SHOW statement_timeout")) == {"statement_timeout": f"{DEADLINE_S * 1000:.0f}ms"}
        # A server that does not keep to it, as one that hangs would not.
        runner.run(store.rows("SELECT set_config('statement_timeout', '0', false)"))
        clock.outside = lambda: False
        assert DEADLINE_S <= runner.run(give_up()) <= DEADLINE_S + 0.5
        runner.run(store.close())


def test_a_connection_waits_for_its_server_no_longer_than_the_deadline() -> None:
    clock = Clock(outside=lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as silent, asyncio.Runner(loop_factory=lambda: clock) as runner:
        store = Store(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres", "x")
        with pytest.raises(StoreUnavailable, match=f"no connection within {DEADLINE_S} s"):
            runner.run(store.rows("SELECT 1"))
    assert clock.time() == pytest.approx(DEADLINE_S)
