"""What a row counts; and running a study, and what it left."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOW = {
    "name": "slow",
    "envs": ["FrozenLake-v1"],
    "agents": [{"name": "q_learning", "log_every": 100_000}],
    "seeds": 4,
    "steps": 20_000_000,
    "evaluation": {"every": 10_000_000},
    "checkpoint": {"every": 500_000},
}
QUICK = {
    "name": "quick",
    "envs": ["FrozenLake-v1"],
    "agents": ["q_learning"],
    "seeds": 1,
    "steps": 4_000,
    "evaluation": {"every": 2_000, "episodes": 5},
    "checkpoint": {"every": 1_000},
}


@dataclass
class Outcome:
    """Of a row: how often the fault was brought about, what was counted, and what must be 0."""

    times: int
    counts: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not any(self.faults.values())

    def said(self) -> str:
        counts = {**self.faults, **self.counts}
        return ", ".join(
            f"{value:,.3g} {name}" if isinstance(value, float) else f"{value:,} {name}" for name, value in counts.items()
        )


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """`mpagents …` in a folder, in a session of its own, heeding Ctrl-C also where a shell's background job wouldn't."""
    return subprocess.Popen(
        [sys.executable, "-m", "mpagents", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    process = start(folder, *arguments)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def write_study(folder: Path, study: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(json.dumps(study))  # JSON is YAML


def undisturbed(folder: Path, study: dict[str, Any] = SLOW) -> dict[str, Any]:
    """The results of the same study in one process, in one go."""
    write_study(folder, study)
    done = run(folder, "run", "study.yaml", "--workers", "0", "--out", "calm")
    assert done.returncode == 0, done.stderr
    return results(folder / "calm" / study["name"])


def results(folder: Path) -> dict[str, Any]:
    """Of every trial: its status, the rows of `metrics.jsonl`, and TensorBoard's curves, without what the clock decides."""
    found = {}
    for path in sorted(folder.glob("*/*/seed=*")):
        status = json.loads((path / "status.json").read_text())
        status = {key: value for key, value in status.items() if key not in ("seconds", "warnings")}
        metrics = path / "metrics.jsonl"  # not there where a trial died as it began
        rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
        rows = [{key: value for key, value in row.items() if not key.startswith("time")} for row in rows]
        found[str(path.relative_to(folder))] = {"status": status, "rows": rows, "curves": curves(path)}
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every purge
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("time")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def differing(found: dict[str, Any], calm: dict[str, Any]) -> int:
    """Trials that are missing or not as in the undisturbed run."""
    return sum(found.get(path) != of_trial for path, of_trial in calm.items()) + len(found.keys() - calm.keys())


def checkpoints(folder: Path) -> dict[str, int]:
    """The newest step of every trial."""
    newest: dict[str, int] = {}
    for path in folder.glob("*/*/seed=*/checkpoint/step=*"):
        trial = str(path.parents[1].relative_to(folder))
        newest[trial] = max(newest.get(trial, 0), int(path.name.removeprefix("step=")))
    return newest


def finished(folder: Path) -> dict[str, int]:
    """When each finished trial's status was written."""
    found = {}
    for path in folder.glob("*/*/seed=*/status.json"):
        with contextlib.suppress(ValueError):
            if json.loads(path.read_text())["status"] == "finished":
                found[str(path.parent.relative_to(folder))] = path.stat().st_mtime_ns
    return found


def trial() -> Any:
    from mpagents.study import Study

    (spec,) = Study.from_values(QUICK).trials().trials
    return spec


def processes_in(folder: Path) -> list[int]:
    """Those that stand in a folder: Ray's start where the driver did."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").resolve().is_relative_to(folder) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def workers_of(driver: int) -> list[int]:
    """Ray's worker processes that run a task of this driver."""
    parents, named = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            named[int(entry.name)] = (entry / "cmdline").read_bytes()

    def descends(pid: int) -> bool:
        while pid > 1 and pid != driver:
            pid = parents.get(pid, 0)
        return pid == driver

    return [pid for pid, name in named.items() if name.startswith(b"ray::work") and descends(pid)]


def wait_gone(folder: Path, seconds: float = 60) -> tuple[float, int]:
    """(seconds until no process stands in the folder, processes left after that time)."""
    begun = time.monotonic()
    while (left := processes_in(folder)) and time.monotonic() - begun < seconds:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            print(f"left behind: {pid} {command[:200]}", file=sys.stderr)
    return time.monotonic() - begun, len(left)
