"""Processes killed: workers, drivers, nodes of a cluster; and ten minutes of everything at random."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.fault_rows.damage import damaged
from benchmarks.fault_rows.outcome import (
    QUICK,
    SLOW,
    Outcome,
    checkpoints,
    differing,
    finished,
    results,
    run,
    start,
    undisturbed,
    wait_gone,
    workers_of,
)  # fmt: skip

OF_COMMANDS = ("trials lost", "trials unequal", "commands that failed")


def count_faults(outcome: Outcome, process: subprocess.Popen, folder: Path, calm: dict[str, Any]) -> None:
    """Wait for a command to end; count OF_COMMANDS, its trials beside those of the undisturbed run."""
    _, errors = process.communicate()
    if process.returncode:
        print(f"exit code {process.returncode}:\n{errors}", file=sys.stderr)
    found = results(folder / "runs/slow")
    outcome.faults["commands that failed"] += process.returncode != 0
    outcome.faults["trials lost"] += sum(trial["status"]["status"] != "finished" for trial in found.values())
    outcome.faults["trials unequal"] += differing(found, calm)


def workers(times: int, folder: Path, rng: random.Random) -> Outcome:
    """SIGKILL of a worker at random times, after both made progress: a trial that dies thrice without any fails by rule."""
    calm, outcome = undisturbed(folder), Outcome(0, faults=dict.fromkeys(OF_COMMANDS, 0))
    before: dict[str, int] = {}
    while outcome.times < times:
        process = start(folder, "run", "study.yaml", "--workers", "2", "--json", "--fresh")
        while process.poll() is None and outcome.times < times:
            wait_for_progress(process, folder / "runs/slow", before, trials=2)
            time.sleep(rng.uniform(0.0, 2.0))
            before = checkpoints(folder / "runs/slow")
            busy = workers_of(process.pid)
            if busy:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(busy), signal.SIGKILL)
                    outcome.times += 1
        count_faults(outcome, process, folder, calm)
    return outcome


def drivers(times: int, folder: Path, rng: random.Random) -> Outcome:
    """SIGKILL, SIGTERM and Ctrl-C of the driver in turn, also while Ray starts; then the same command again."""
    calm, runs = undisturbed(folder), folder / "runs/slow"
    zero = ("finished trials run again", "trials set back", "processes left after 60 s", "signals not heeded", "trials unequal")
    outcome, slowest = Outcome(0, faults=dict.fromkeys(zero, 0)), 0.0
    for number in range(times):
        if runs.is_dir() and len(finished(runs)) == SLOW["seeds"]:
            outcome.faults["trials unequal"] += differing(results(runs), calm)
            shutil.rmtree(runs)
        before, done = checkpoints(runs), finished(runs)
        process = start(folder, "run", "study.yaml", "--workers", "2")
        if number % 4 < 3:  # one in four is stopped while it starts
            wait_for_progress(process, runs, before)
        time.sleep(rng.uniform(0, 3))
        sent = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3]
        over = process.poll() is not None
        process.send_signal(sent)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            outcome.faults["signals not heeded"] += 1
            process.kill()
            _, errors = process.communicate()
        ended = len(finished(runs)) == SLOW["seeds"]  # it came as the report was being written: exit code 0
        heeded = over or ended or process.returncode in (130, -sent, -signal.SIGABRT)  # Ray turns some SIGTERM into SIGABRT
        outcome.faults["signals not heeded"] += not heeded
        if not heeded:
            print(f"{sent.name} in command {number + 1}: exit code {process.returncode}\n{errors}", file=sys.stderr)
        outcome.times += 1
        seconds, left = wait_gone(folder)
        slowest = max(slowest, seconds)
        outcome.faults["processes left after 60 s"] += left
        after = checkpoints(runs)
        outcome.faults["trials set back"] += sum(after.get(trial, 0) < step for trial, step in before.items())
        outcome.faults["finished trials run again"] += sum(finished(runs).get(trial) != when for trial, when in done.items())
    assert run(folder, "run", "study.yaml", "--workers", "2").returncode == 0
    outcome.faults["trials unequal"] += differing(results(runs), calm)
    outcome.counts["s at most until all processes were gone"] = slowest
    return outcome


def wait_for_progress(process: subprocess.Popen, runs: Path, before: dict[str, int], trials: int = 1) -> None:
    """Until so many trials have taken a checkpoint since (or all unfinished ones), the command has ended, or for 2 minutes."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        advanced = sum(step > before.get(trial, 0) for trial, step in checkpoints(runs).items())
        if advanced >= min(trials, SLOW["seeds"] - len(finished(runs))):
            return
        time.sleep(0.1)


def nodes(times: int, folder: Path, rng: random.Random) -> Outcome:
    """A node of a local cluster (head and three nodes) killed with the trial that it runs, another put in its place."""
    from ray.cluster_utils import Cluster

    calm, outcome = undisturbed(folder), Outcome(0, faults=dict.fromkeys(OF_COMMANDS, 0))
    one = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=one | {"include_dashboard": False})
    others = [cluster.add_node(**one) for _ in range(3)]
    try:
        while outcome.times < times:
            process = start(folder, "run", "study.yaml", "--address", cluster.address, "--json", "--fresh")
            while process.poll() is None and outcome.times < times:
                time.sleep(rng.uniform(0.5, 4))
                busy = [node for node in others if workers_of(node.all_processes["raylet"][0].process.pid)]
                if busy:
                    killed = rng.choice(busy)
                    others.remove(killed)
                    cluster.remove_node(killed, allow_graceful=False)
                    others.append(cluster.add_node(**one))
                    outcome.times += 1
            count_faults(outcome, process, folder, calm)
    finally:
        cluster.shutdown()
    return outcome


def chaos(times: int, folder: Path, rng: random.Random) -> Outcome:
    """For `times` seconds: workers and drivers killed, checkpoints damaged, at random; then what is left behind."""
    calm, runs, shared = undisturbed(folder), folder / "runs/slow", shared_memory()
    zero = ("trials unequal", "processes left", "shared memory left", "file handles left", "commands that failed")
    outcome, end = Outcome(0, faults=dict.fromkeys(zero, 0)), time.monotonic() + times
    while time.monotonic() < end:
        process = start(folder, "run", "study.yaml", "--workers", "2")
        while process.poll() is None and time.monotonic() < end:
            time.sleep(rng.uniform(0.5, 5))
            strike(process, runs, rng)
            outcome.times += 1
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate()
        outcome.faults["processes left"] += wait_gone(folder)[1]
        if len(finished(runs)) == SLOW["seeds"]:
            outcome.faults["trials unequal"] += differing(results(runs), calm)
            shutil.rmtree(runs)
    outcome.faults["commands that failed"] += run(folder, "run", "study.yaml", "--workers", "2").returncode != 0
    outcome.faults["trials unequal"] += differing(results(runs), calm)
    outcome.faults["processes left"] += wait_gone(folder)[1]
    outcome.faults["shared memory left"] += len(shared_memory() - shared)
    outcome.faults["file handles left"] += handles_left(folder)
    return outcome


def strike(process: subprocess.Popen, runs: Path, rng: random.Random) -> None:
    """One fault, drawn at random."""
    kind = rng.choice(("worker", "worker", "driver", "checkpoint"))
    if kind == "driver":
        process.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
    elif kind == "worker":
        for worker in workers_of(process.pid)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    else:
        for path in runs.glob("*/*/seed=*/checkpoint"):
            steps = sorted(path.glob("step=*"), key=lambda found: int(found.name[5:]))
            with contextlib.suppress(OSError):
                if len(steps) > 1:  # the one before stays
                    file = rng.choice(sorted(steps[-1].iterdir()))
                    file.write_bytes(damaged(file.read_bytes(), rng))


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").is_dir() else set()


def handles_left(folder: Path) -> int:
    """File handles that a study in this process leaves open."""
    import mpagents

    def once(name: str) -> int:
        study = mpagents.Study.from_values(QUICK | {"name": name})
        mpagents.run(study, out=folder / "handles", workers=0, show="quiet")
        return len(list(Path("/proc/self/fd").iterdir()))

    once("first")
    return max(0, once("third") - once("second"))
