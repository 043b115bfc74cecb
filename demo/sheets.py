"""Reads a CSV file and says what is in it: rows, columns, what each column holds, and which rows are wrong."""

import csv
import io
from typing import Any

ERRORS_SHOWN = 20


class SheetError(Exception):
    """The text is not a CSV file with a header; the text of the error says why."""


def report_on(text: str) -> dict[str, Any]:
    """`rows` (without the header), `columns` [{name, type, empty, distinct}], `errors` [{row, error}], `error_count`.

    Rows are counted from 1, the header is row 1. A row of another width than the header's is an error and is not
    counted into its columns. Raises SheetError.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True) if line]
    except csv.Error as error:
        raise SheetError(f"this is not CSV: {error}") from None
    if not lines:
        raise SheetError("the file is empty")
    header = [name.strip() for name in lines[0]]
    if not all(header):
        raise SheetError("the header has a column without a name")
    if len(set(header)) < len(header):
        raise SheetError("the header has the same column twice")
    good = [line for line in lines[1:] if len(line) == len(header)]
    errors = [
        {"row": number, "error": f"has {len(line)} columns instead of {len(header)}"}
        for number, line in enumerate(lines[1:], start=2)
        if len(line) != len(header)
    ]
    columns = [_column(name, [line[index].strip() for line in good]) for index, name in enumerate(header)]
    return {
        "rows": len(lines) - 1,
        "columns": columns,
        "errors": errors[:ERRORS_SHOWN],
        "error_count": len(errors),
    }


def _column(name: str, values: list[str]) -> dict[str, Any]:
    filled = [value for value in values if value]
    return {"name": name, "type": _type(filled), "empty": len(values) - len(filled), "distinct": len(set(filled))}


def _type(values: list[str]) -> str:
    for kind, convert in (("integer", int), ("number", float)):
        try:
            for value in values:
                convert(value)
        except ValueError:
            continue
        return kind if values else "empty"
    return "text"
