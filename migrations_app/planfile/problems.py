"""What is wrong with a plan file: where it is, and why, in plain words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault of a plan file.

    `file` is the name the reader was given, `line` counts from 1 (0 when the file could not be read at all), `path`
    names the place in the document (`weeks[3].prerequisites[jwt].title`, empty for the file as a whole).
    """

    file: str
    line: int
    path: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: "
        return f"{place}{self.path}: {self.reason}" if self.path else f"{place}{self.reason}"

    def as_json(self) -> dict[str, str | int]:
        return {"file": self.file, "line": self.line, "path": self.path, "reason": self.reason}


class PlanFileError(Exception):
    """The plan file cannot be used. `problems` has every reason, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
