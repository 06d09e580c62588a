"""Studies on Ray, from the command line: parallel, deterministic, and nothing is lost when something breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT

STUDY = """
name: small
envs: [FrozenLake-v1, {id: CliffWalking-v1, max_episode_steps: 200}]
agents: [value_iteration, q_learning, sarsa]
seeds: 2
steps: 2_000
evaluation: {every: 1_000, episodes: 5}
"""
SLOW = """
name: slow
envs: [FrozenLake-v1]
agents: [{name: q_learning, log_every: 200_000}]
seeds: 4
steps: 300_000_000
evaluation: {every: 100_000_000}
checkpoint: {every: 2_000_000}
"""


def results(folder: Path) -> dict[str, list]:
    """Every trial's rows without clock times, and its status without them."""
    found = {}
    for path in sorted(folder.glob("*/*/seed=*")):
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        status = json.loads((path / "status.json").read_text())
        del status["seconds"]
        found[str(path.relative_to(folder))] = [
            status, [{k: v for k, v in line.items() if not k.startswith("time")} for line in lines],
        ]  # fmt: skip
    return found


def heeding_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mpagents", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeding_ctrl_c,
    )


def wait_until(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


def test_study_is_the_same_here_and_on_workers(cli, study_file, tmp_path):
    study_file(STUDY)
    for workers in ("0", "2"):
        done = cli("run", "study.yaml", "--workers", workers, "--out", f"at{workers}", "--json")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["failed"] == 0
    here, two = (results(tmp_path / f"at{workers}/small") for workers in "02")
    assert len(here) == 12
    assert here == two
    for name in ("summary.csv", "summary.json", "report.html", "study.json"):
        assert (tmp_path / "at2/small" / name).stat().st_size > 0


def test_study_continues_grows_and_refuses_a_changed_configuration(cli, study_file, tmp_path):
    study_file(STUDY)
    run = ("run", "study.yaml", "--workers", "0")
    assert cli(*run).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/small/*/*/*/status.json")}
    again = cli(*run, "--set", "seeds=3")
    assert "6 trials (12 finished earlier)" in again.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    changed = cli(*run, "--set", "agents.1.alpha=0.5")
    assert changed.returncode == 2
    assert "agent.config.alpha was 0.1, is now 0.5" in changed.stderr
    assert "--fresh" in changed.stderr
    assert "12 trials" in cli(*run, "--set", "agents.1.alpha=0.5", "--fresh").stderr


def test_study_goes_on_when_a_trial_raises(cli, study_file, tmp_path):
    study_file(STUDY.replace("q_learning", '{name: "breaking:Agent", label: breaking}'))
    agent = (ROOT / "tests/user_project/my_agent.py").read_text()
    broken = agent.replace("yield num_steps, {}", "raise RuntimeError('it broke [red]here[/]')\n        yield")
    (tmp_path / "breaking.py").write_text(broken.replace("class Constant", "class Agent"))
    done = cli("run", "study.yaml", "--workers", "2")
    assert done.returncode == 1
    assert "failed: FrozenLake-v1/breaking/seed=0: it broke [red]here[/]" in done.stdout
    assert "why: runs/small/FrozenLake-v1/breaking/seed=0/status.json" in done.stdout
    statuses = [status["status"] for status, _ in results_of_finished(tmp_path / "runs/small").values()]
    assert statuses.count("finished") == 8
    (tmp_path / "breaking.py").write_text(agent.replace("class Constant", "class Agent"))
    mended = cli("run", "study.yaml", "--workers", "0")
    assert mended.returncode == 0
    assert "4 trials (8 finished earlier)" in mended.stderr


def results_of_finished(folder: Path) -> dict:
    statuses = {str(p.parent): json.loads(p.read_text()) for p in folder.glob("*/*/seed=*/status.json")}
    return {path: (status, None) for path, status in statuses.items()}


def test_study_stops_at_ctrl_c_and_continues(study_file, tmp_path):
    study_file(SLOW)
    process = start(tmp_path, "run", "study.yaml", "--workers", "2")
    try:
        wait_until(lambda: list(tmp_path.glob("runs/slow/*/*/*/checkpoint/step=*")), 60, "a checkpoint")
        busy = subprocess.run(
            [sys.executable, "-m", "mpagents", "run", "study.yaml"], cwd=tmp_path, capture_output=True, text=True
        )
        assert busy.returncode == 2
        assert "is in use by process" in busy.stderr
        asked = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - asked < 5
        assert process.returncode == 130
        assert "the same command continues" in errors
        assert "Traceback" not in errors
    finally:
        process.kill()
    wait_until(lambda: not mine(tmp_path), 5, "Ray's processes to be gone")
    steps = [int(path.name.removeprefix("step=")) for path in tmp_path.glob("runs/slow/*/*/*/checkpoint/step=*")]
    process = start(tmp_path, "run", "study.yaml", "--workers", "2")
    try:
        newest = max(steps)
        wait_until(
            lambda: any(int(p.name[5:]) > newest for p in tmp_path.glob("runs/slow/*/*/*/checkpoint/step=*")), 60, "progress"
        )
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def mine(folder: Path) -> list[str]:
    """Ray processes that stand in our folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cwd").resolve() == folder and "ray" in (entry / "cmdline").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def test_study_survives_a_killed_worker(study_file, tmp_path):
    study_file(SLOW.replace("300_000_000", "14_000_000").replace("seeds: 4", "seeds: 2"))
    process = start(tmp_path, "run", "study.yaml", "--workers", "2", "--json")
    wait_until(lambda: list(tmp_path.glob("runs/slow/*/*/*/checkpoint/step=*")), 60, "a checkpoint")
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and is_worker(entry)]
    workers = [pid for pid in processes if descends(pid, process.pid)]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    assert json.loads(output)["failed"] == 0
    disturbed = results(tmp_path / "runs/slow")
    subprocess.run(
        [sys.executable, "-m", "mpagents", "run", "study.yaml", "--workers", "0", "--out", "calm"], cwd=tmp_path, check=True,
        capture_output=True,
    )  # fmt: skip
    assert disturbed == results(tmp_path / "calm/slow")


def is_worker(entry: Path) -> bool:
    try:
        return (entry / "cmdline").read_bytes().startswith(b"ray::work")
    except OSError:
        return False


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_lost_pack_blames_the_trial_that_was_running(tmp_path):
    from collections import Counter

    from mpagents.results.checkpoint import save_checkpoint
    from mpagents.results.files import write_json
    from mpagents.runner import MAX_NODES_LOST, MAX_RETRIES, _lost
    from mpagents.study import Study

    study = Study.from_values({"name": "p", "envs": ["FrozenLake-v1"], "agents": ["random"], "seeds": 3})
    pack = {spec.path: spec for spec in study.trials().trials}
    first, second, third = pack.values()
    (tmp_path / first.path).mkdir(parents=True)
    failure = {"status": "failed", "hash": first.hash, "error": {"type": "E", "message": "its own reason", "traceback": "t"}}
    write_json(tmp_path / first.path / "status.json", failure)
    losses, told = Counter(), []
    for _ in range(MAX_RETRIES):
        assert _lost(pack, losses, "gone", tmp_path, told.append) == [second, third]
    for _ in range(MAX_NODES_LOST):  # counted apart
        assert _lost(pack, losses, "gone", tmp_path, told.append, of_node=True) == [second, third]
    assert _lost(pack, losses, "gone", tmp_path, told.append) == [third]
    assert losses == {(second.path, 0, False): MAX_RETRIES + 1, (second.path, 0, True): MAX_NODES_LOST}
    save_checkpoint(tmp_path / third.path / "checkpoint", 5, {}, keep=1)
    for _ in range(MAX_RETRIES):
        assert _lost({third.path: third}, losses, "gone", tmp_path, told.append) == [third]
    save_checkpoint(tmp_path / third.path / "checkpoint", 6, {}, keep=1)  # it gets on, if slowly
    assert _lost({third.path: third}, losses, "gone", tmp_path, told.append) == [third]
    assert told[-2]["status"] == failure
    assert "its worker process died 3 times: gone" in told[-1]["status"]["error"]["message"]


def test_study_answers_several_signals_as_one(study_file, tmp_path):
    study_file(SLOW)
    process = start(tmp_path, "run", "study.yaml", "--workers", "2")
    wait_until(lambda: list(tmp_path.glob("runs/slow/*/*/*/checkpoint/step=*")), 60, "a checkpoint")
    asked = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert process.returncode == 130, errors
    assert "the same command continues" in errors
    wait_until(lambda: not mine(tmp_path), 10, "Ray's processes to be gone")


def test_user_project_runs_from_its_own_folder(tmp_path):
    import shutil

    shutil.copytree(ROOT / "tests/user_project", tmp_path / "project")
    run = [sys.executable, "-m", "mpagents"]
    done = subprocess.run([*run, "run", "study.yaml"], cwd=tmp_path / "project", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "project/runs/user-project/summary.csv").read_text()
    assert "Corridor-v0,right,,False,2,2" in summary
    assert ",-14.0," in summary  # seven steps right, every reward doubled
    hidden = subprocess.run(
        [*run, "train", "random", "envs:RiverSwim-v0"], cwd=tmp_path / "project", capture_output=True, text=True
    )
    assert hidden.returncode == 2
    assert f"your folder {tmp_path / 'project/envs'}, which stands in the way" in hidden.stderr


def test_study_joins_a_cluster(tmp_path):
    import shutil

    shutil.copytree(ROOT / "tests/user_project", tmp_path / "project")
    code = (
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 2})\n"
        "print('at', cluster.address, flush=True); input()"
    )
    cluster = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in cluster.stdout if line.startswith("at "))
        run = [sys.executable, "-m", "mpagents", "run", "study.yaml", "--address"]
        done = subprocess.run([*run, line.split()[1]], cwd=tmp_path / "project", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        nowhere = subprocess.run([*run, "127.0.0.1:1", "--fresh"], cwd=tmp_path / "project", capture_output=True, text=True)
        assert nowhere.returncode == 2
        assert "no Ray cluster answers at 127.0.0.1:1" in nowhere.stderr
    finally:
        cluster.communicate("\n", timeout=30)


def test_python_runs_what_the_file_runs(tmp_path, monkeypatch):
    import mpagents

    monkeypatch.setitem(sys.modules, "ray", None)  # isn't used without workers
    monkeypatch.chdir(tmp_path)
    study = mpagents.Study(name="py", envs=["FrozenLake-v1"], agents=["q_learning"], seeds=2, steps=50_000)
    found = mpagents.run(study, workers=0, show="quiet")
    frame = found.frame()
    assert set(frame["step"]) == {5_000 * i for i in range(1, 11)}
    assert {"env", "agent", "seed", "eval/mean_reward", "eval/regret"} <= set(frame.columns)
    agent = mpagents.load_agent(found.best())
    action, state = agent.predict([0], deterministic=True)
    assert action.tolist() == [0]
    assert state is None
