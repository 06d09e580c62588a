"""The ledger of a search: JSON lines, appended and flushed to the disk, that say which configurations were tried and what
they gave.

    {"event": "suggested", "id": "c0003", "values": {…}}
    {"event": "reported", "id": "c0003", "mark": 2, "generation": 0, "value": 61.5}       at its 2nd evaluation
    {"event": "ended", "id": "c0003", "state": "finished", "mark": 10, "value": 98.0, "values": {…}}

It is all that a continued search goes by: Ray Tune's own state is never read. A line that a killed process left half
written is cut off; a damaged one before it is refused, for results would be lost silently.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpagents.configuration import InvalidInput, Problem
from mpagents.results.files import NO_LINK, check_inside, read_json, sync_folder, write_json
from mpagents.results.ledger import differences
from mpagents.specification import versions
from mpagents.tune_space import Domain

OURS = ("ledger", "search", "ray", "final", "tuned.json", "tune.json")  # in a study's folder, besides best*.yaml
ENDS = ("finished", "stopped", "failed")  # stopped: by the scheduler, before its last evaluation


@dataclass
class Entry:
    """What the ledger knows of a configuration."""

    id: str
    values: dict[str, Any]
    reports: dict[tuple[int, int], float] = field(default_factory=dict)  # by (generation, mark), in order
    state: str | None = None  # one of ENDS; None: it hasn't ended
    mark: int = 0  # of its last report: the number of the evaluation
    value: float | None = None  # of its last report: the mean over seeds
    error: str | None = None


class Ledger:
    """The ledger in one file, which is made where it isn't there; `space`: what its values are checked against."""

    def __init__(self, path: Path, space: Mapping[str, Domain] | None = None) -> None:
        self.path, self.space = path, space
        self.entries: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666), "r+b")
        try:
            whole = self._read()
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(whole)
        self._file.seek(whole)
        sync_folder(path.parent)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __reduce__(self) -> tuple[type, tuple]:
        return dict, ()  # Tune pickles whatever refers to it, into a state that is never read

    def suggest(self, values: dict[str, Any]) -> Entry:
        """A new configuration, on the disk before it is tried."""
        id = f"c{len(self.entries):04}"
        self._append({"event": "suggested", "id": id, "values": values})
        return self.entries[id]

    def report(self, id: str, mark: int, value: float, generation: int = 0) -> bool:
        """A configuration's evaluation; False where the ledger has it (a continued one tells its evaluations again)."""
        if (generation, mark) in self.entries[id].reports:
            return False
        self._append({"event": "reported", "id": id, "mark": mark, "generation": generation, "value": value})
        return True

    def end(self, id: str, state: str, values: dict[str, Any] | None = None, error: str | None = None) -> None:
        """A configuration's end, by its last report; `values` where they aren't those that it began with."""
        entry = self.entries[id]
        line = {"event": "ended", "id": id, "state": state, "mark": entry.mark, "value": entry.value}
        line |= {"values": values or entry.values} | ({"error": error} if error else {})
        self._append(line)

    def ended(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state is not None]

    def unfinished(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state is None]

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(line)

    def _read(self) -> int:
        """Take in what is there; the length of its whole lines."""
        *lines, _ = self._file.read().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                fix = "put a sound copy there, or begin anew with --fresh"
                raise ValueError(f"{self.path}: line {number} is damaged ({error!r}); {fix}") from error
        return sum(len(line) + 1 for line in lines)

    def checked(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values as the space has them; a folder may have been sent by somebody."""
        space = self.space
        if space is not None and (values.keys() != space.keys() or not all(space[key].holds(values[key]) for key in space)):
            raise ValueError(f"{values} isn't within the space")
        return dict(values)

    def _take(self, line: dict[str, Any]) -> None:
        event, id = line["event"], line["id"]
        if event == "suggested":
            if not re.fullmatch(r"c\d{4,}", id):
                raise ValueError(f"{id!r} is no configuration's id")
            self.entries[id] = Entry(id, self.checked(line["values"]))
            return
        entry = self.entries[id]
        if event == "reported":
            entry.mark, entry.value = int(line["mark"]), float(line["value"])
            entry.reports[int(line["generation"]), entry.mark] = entry.value
        elif event == "ended" and line["state"] in ENDS:
            entry.state, entry.values, entry.error = line["state"], self.checked(line["values"]), line.get("error")
        else:
            raise ValueError(f"unknown event {event!r}")


def discard(folder: Path) -> None:
    """Delete what an earlier search left in the folder."""
    for entry in [folder / name for name in OURS] + list(folder.glob("best*.yaml")):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def continued(folder: Path, name: str, search: dict[str, Any]) -> None:
    """Record what is searched. Raises InvalidInput where the folder holds the results of another search."""
    for name in OURS:
        check_inside(folder, name)
    old, new = read_json(folder / "tune.json"), search
    if old is not None and (not isinstance(old, dict) or old.get("search") != new):
        before = old.get("search") if isinstance(old, dict) else None
        difference = differences(_flat_name(before if isinstance(before, dict) else {}), _flat_name(new))
        fix = Problem((), "change the study's name, or discard the old search with --fresh")
        raise InvalidInput([Problem(("tune",), difference), fix])
    write_json(folder / "tune.json", {"name": name, "search": new, "versions": versions()})
    shutil.rmtree(folder / "ray", ignore_errors=True)  # of an interrupted search: never read


def _flat_name(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}
