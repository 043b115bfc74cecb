"""The estate's data: the same rows on every machine, computed from a row's number and nothing else."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from demo import passwords
from demo.sheets import report_on

PASSWORD = "tracseq-demo"  # noqa: S105  printed in the README: it opens nothing but the demo
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

FIRST = ("ana", "bo", "chidi", "dana", "emil", "farah", "goran", "hana", "ivo", "june")
LAST = ("silva", "lind", "okafor", "weiss")
ROLES = ("scientist", "technician", "lab_admin", "viewer", "support")
KINDS = ("DNA", "RNA", "library", "plasmid")
SAMPLE_STATES = ("submitted", "validated", "in_storage", "in_sequencing", "completed", "rejected")
RUN_STATES = ("completed", "completed", "running", "failed", "completed", "queued")
INSTRUMENTS = ("NovaSeq 6000", "NextSeq 2000", "MinION Mk1B", "PromethION 24")
ZONES = (("freezer", -80), ("freezer", -20), ("fridge", 4), ("room", 20))
CHANNELS = ("email", "in_app", "slack")
EVENTS = (
    ("Run finished", "Run {n} finished; its yield is on the run page."),
    ("Sample rejected", "Sample {n} was rejected: the concentration is under the limit."),
    ("Storage nearly full", "A location passed 90 % of its capacity at check {n}."),
    ("Template updated", "Submission template {n} has a new version; open sheets keep the old one."),
    ("Maintenance", "Instrument check {n} is planned for Friday, 07:00."),
)
SHEETS = ("Library preparation", "Sample submission", "Plate layout", "Run set-up", "Quality control", "Shipping")
TOPICS = {
    "extraction": "Keep the lysate on ice, add the binding buffer and load the column within ten minutes.",
    "library preparation": "Ligate adapters at 20 degrees, clean up with beads and elute in 15 microlitres.",
    "quality control": "Measure the concentration twice; repeat when the two readings differ by more than ten percent.",
    "sequencing": "Prime the flow cell, load the library slowly and start the run once pore occupancy is above eighty.",
    "storage": "Freeze samples in aliquots at minus eighty; each thaw costs yield, so note every one.",
    "barcodes": "Scan the barcode at every hand-over; a sample without a scan is a sample that is lost.",
}

Row = dict[str, Any]


def usernames() -> list[str]:
    """All forty, in the order of their ids."""
    return [f"{first}.{last}" for last in LAST for first in FIRST]


def users() -> Iterator[Row]:
    """Forty users; the password of each is PASSWORD."""
    for n, username in enumerate(usernames()):
        first, last = username.split(".")
        salt = hashlib.sha256(f"tracseq {username}".encode()).digest()[:16]
        yield {
            "username": username,
            "email": f"{username}@tracseq.example",
            "full_name": f"{first} {last}".title(),
            "role": ROLES[n % len(ROLES)],
            "password_hash": passwords.make(PASSWORD, salt),
            "active": n % 13 != 12,
            "created_at": START - timedelta(days=400 - n * 9),
        }


def notifications() -> Iterator[Row]:
    """One hundred and twenty messages to users."""
    names = usernames()
    for n in range(120):
        title, body = EVENTS[n * 7 % len(EVENTS)]
        yield {
            "title": title,
            "body": body.format(n=n + 1),
            "channel": CHANNELS[n % len(CHANNELS)],
            "recipient": names[n * 11 % len(names)],
            "read": n % 4 != 3,
            "created_by": "system",
            "created_at": START + timedelta(hours=n * 5),
        }


def storage_locations() -> Iterator[Row]:
    """Twenty-four freezers, fridges and shelves."""
    for n in range(24):
        zone, temperature = ZONES[n % len(ZONES)]
        capacity = 96 * (1 + n % 3)
        yield {
            "name": f"{zone.title()} {n // len(ZONES) + 1}{'ABCD'[n % len(ZONES)]}",
            "zone": zone,
            "temperature_c": temperature,
            "capacity": capacity,
            "occupied": capacity * (35 + n * 17 % 60) // 100,
        }


def templates() -> Iterator[Row]:
    """Eighteen sheet templates."""
    for n in range(18):
        yield {
            "name": f"{SHEETS[n % len(SHEETS)]} {KINDS[n // len(SHEETS)]}",
            "kind": KINDS[n // len(SHEETS)],
            "version": 1 + n % 4,
            "columns": json.dumps(["barcode", "name", "kind", "concentration", "location"][: 3 + n % 3]),
            "created_by": usernames()[n],
            "updated_at": START + timedelta(days=n * 2),
        }


def samples() -> Iterator[Row]:
    """Two hundred samples."""
    names = usernames()
    for n in range(200):
        kind = KINDS[n * 3 % len(KINDS)]
        yield {
            "barcode": f"TSQ-{20260000 + n + 1}",
            "name": f"{kind} sample {n + 1}",
            "kind": kind,
            "status": SAMPLE_STATES[n * 5 % len(SAMPLE_STATES)],
            "concentration_ng_ul": 5 + n * 37 % 180,
            "storage_location_id": 1 + n * 7 % 24,
            "submitted_by": names[n * 3 % len(names)],
            "created_at": START + timedelta(hours=n * 3),
        }


def sequencing_runs() -> Iterator[Row]:
    """Sixty runs."""
    for n in range(60):
        status = RUN_STATES[n % len(RUN_STATES)]
        started = START + timedelta(hours=n * 11)
        yield {
            "name": f"RUN-{n + 1:04}",
            "instrument": INSTRUMENTS[n * 3 % len(INSTRUMENTS)],
            "flow_cell": f"FC{10000 + n * 7919 % 90000}",
            "status": status,
            "sample_count": 4 + n * 5 % 20,
            "yield_mb": (2_000 + n * 613 % 28_000) if status == "completed" else 0,
            "started_at": started,
            "finished_at": started + timedelta(hours=6 + n % 30) if status in {"completed", "failed"} else None,
        }


def rag_documents() -> Iterator[Row]:
    """Thirty-six protocol notes for the document search."""
    for n in range(36):
        topic, text = list(TOPICS.items())[n % len(TOPICS)]
        kind = KINDS[n // len(TOPICS) % len(KINDS)]
        yield {
            "title": f"{topic.capitalize()} protocol {n + 1} ({kind})",
            "body": f"For {kind} work, revision {1 + n % 5}. {text}",
            "topic": topic,
            "created_at": START - timedelta(days=n * 6),
        }


def spreadsheets() -> Iterator[Row]:
    """Three uploads from before."""
    rows = list(samples())
    for n in range(3):
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["barcode", "name", "concentration"])
        writer.writerows(
            [row["barcode"], row["name"], row["concentration_ng_ul"]] for row in rows[n * 20 : n * 20 + 20]
        )
        report = report_on(out.getvalue())
        yield {
            "name": f"submission-{n + 1}.csv",
            "row_count": report["rows"],
            "column_count": len(report["columns"]),
            "report": json.dumps(report),
            "created_by": usernames()[n],
            "created_at": START + timedelta(days=n),
        }


ROWS: dict[str, Callable[[], Iterator[Row]]] = {
    "users": users,
    "notifications": notifications,
    "storage_locations": storage_locations,
    "templates": templates,
    "samples": samples,
    "sequencing_runs": sequencing_runs,
    "rag_documents": rag_documents,
    "spreadsheets": spreadsheets,
}
