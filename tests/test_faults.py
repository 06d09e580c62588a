"""Faults on purpose, few times each: benchmarks/faults.py brings them about by the hundred. And what keeps them harmless."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fault_rows.environments import BREAKING, STATES, VECTORS
from benchmarks.fault_rows.outcome import results
from benchmarks.fault_rows.writes import Fault, in_a_child
from benchmarks.faults import ROWS, measure
from mpagents import doctor, interrupting, ray_session
from mpagents.configuration import InvalidInput
from mpagents.processes import dying_with_this, family
from mpagents.results.checkpoint import load_latest, save_checkpoint, steps
from mpagents.results.files import write_atomically
from mpagents.results.logger import Logger
from mpagents.study import Study
from mpagents.study_file import parse_study
from mpagents.trial import run_trial
from tests.test_trial import interrupt, trial


@pytest.mark.parametrize(("row", "times"), [("writes", 12), ("damage", 60), ("studies", 40)])
def test_faults_of_files_leave_nothing_lost(row, times):
    outcome = measure(row, times)
    assert outcome.times == times
    assert outcome.sound, outcome.said()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "times"),
    [("workers", 4), ("drivers", 6), ("nodes", 2), ("environments", 9), ("resumes", 5), ("chaos", 60), ("writes", 60)],
)
def test_faults_of_processes_leave_nothing_lost(row, times):
    outcome = measure(row, times)
    assert outcome.times >= min(times, ROWS[row][1]) or row == "chaos"
    assert outcome.sound, outcome.said()


# Checkpoints


def damage(path):
    file = path / "arrays.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_checkpoint_refuses_where_all_are_damaged_and_says_what_to_do(tmp_path):
    for step in (1, 2):
        damage(save_checkpoint(tmp_path, step, {"x": np.ones(2)}, keep=2))
    told = []
    with pytest.raises(ValueError, match=f"all checkpoints are damaged.*step=2.*delete {tmp_path}"):
        load_latest(tmp_path, told.append)
    assert ["step=2" in told[0], "step=1" in told[1], len(told)] == [True, True, 2]


def test_checkpoint_of_an_earlier_step_isnt_deleted_for_a_later_damaged_one(tmp_path):
    damage(save_checkpoint(tmp_path, 9, {"x": 9}, keep=1))
    save_checkpoint(tmp_path, 5, {"x": 5}, keep=1)  # we went on from before 9
    assert load_latest(tmp_path) == (5, {"x": 5})
    assert steps(tmp_path) == [5]


def test_checkpoint_that_was_whole_when_its_process_died_counts(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": 1}, keep=1)
    whole = save_checkpoint(tmp_path, 2, {"x": 2}, keep=2).rename(tmp_path / ".step=2.77.tmp")
    assert load_latest(tmp_path) == (2, {"x": 2})
    save_checkpoint(tmp_path, 3, {"x": 3}, keep=1, best=2)  # we went on from it, and it is the best one
    assert steps(tmp_path) == [2, 3]
    shutil.rmtree(tmp_path / "step=3")
    save_checkpoint(tmp_path, 1, {"x": 1}, keep=1, best=2)
    (tmp_path / "step=2").rename(whole)
    (whole / "state.json").unlink()
    assert load_latest(tmp_path) == (1, {"x": 1})
    save_checkpoint(tmp_path, 3, {"x": 3}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step=3"]  # nothing is left behind


@pytest.mark.parametrize("at", ["sha256", '"step": 2', " "])
def test_checkpoint_damage_of_the_manifest_itself_is_found(tmp_path, at):
    save_checkpoint(tmp_path, 1, {"x": 1}, keep=2)
    file = save_checkpoint(tmp_path, 2, {"x": 2}, keep=2) / "manifest.json"
    other = {"sha256": "sha257", '"step": 2': '"step": 3', " ": "\t"}[at]
    file.write_text(file.read_text().replace(at, other, 1))
    assert load_latest(tmp_path, [].append) == (1, {"x": 1})


def test_trial_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(tmp_path):
    spec = trial("q_learning")
    run_trial(spec, tmp_path / "calm")
    interrupt(spec, tmp_path / "cut", 4_000)
    newest = max((tmp_path / "cut" / spec.path / "checkpoint").glob("step=*"))
    damage(newest)
    status = run_trial(spec, tmp_path / "cut")
    assert [newest.name in text for text in status["warnings"]] == [True]
    found, calm = results(tmp_path / "cut"), results(tmp_path / "calm")
    assert found == calm


def test_trial_isnt_silently_begun_anew_where_all_its_checkpoints_are_damaged(tmp_path):
    spec = trial("q_learning")
    interrupt(spec, tmp_path, 2_000)
    rows = (tmp_path / spec.path / "metrics.jsonl").read_bytes()
    for path in (tmp_path / spec.path / "checkpoint").glob("step=*"):
        damage(path)
    status = run_trial(spec, tmp_path)
    assert status["status"] == "failed"
    assert "all checkpoints are damaged" in status["error"]["message"]
    assert (tmp_path / spec.path / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_the_reason_that_is_told(tmp_path, error):
    spec = trial("q_learning")
    with Fault().armed() as counting:
        run_trial(spec, tmp_path / "calm")
    in_a_child(lambda: _armed(spec, tmp_path / "full", Fault(counting.count // 2, error)))
    status = json.loads((tmp_path / "full" / spec.path / "status.json").read_text())
    assert status["status"] == "failed"
    assert os.strerror(error) in status["error"]["message"]
    assert run_trial(spec, tmp_path / "full")["status"] == "finished"
    assert results(tmp_path / "full") == results(tmp_path / "calm")


def _armed(spec, root, fault):
    with fault.armed():
        run_trial(spec, root)


def test_logger_closes_its_files_where_the_disk_is_full(tmp_path, monkeypatch):
    logger = Logger(tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        logger.close()
    assert logger._rows.closed
    assert logger._events_file.closed


def test_files_are_not_written_through_a_link_and_leave_nothing_when_interrupted(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / f".a.{os.getpid()}.tmp").symlink_to(outside)
    write_atomically(tmp_path / "a", "new")
    assert [outside.read_text(), (tmp_path / "a").read_text()] == ["kept", "new"]
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "b", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "outside"]


# Environments


@pytest.fixture
def breaking(tmp_path, monkeypatch):
    (tmp_path / "breaking.py").write_text(BREAKING)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("breaking", None)


SAID = {
    "Raises": "raised OSError: the simulator is gone",
    "Hangs": "raised TimeoutError: no answer within 1 s",
    "NanReward": "gave the reward nan; expected a finite number",
    "WrongReward": "raised",
    "WrongState": "gave an observation that is 3; expected a state 0 … 2",
    "WrongType": "raised",
    "NanObservation": "gave an observation that is NaN in 1 of 3 numbers",
    "WrongShape": "raised ValueError",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in (*STATES, *VECTORS) if name in SAID])
def test_environment_that_breaks_is_named_with_its_step(breaking, name):
    agent = {"name": "dqn", "hidden_sizes": [4]} if name in VECTORS else "q_learning"
    spec = trial(agent, {"id": f"breaking:{name}", "label": "bad"}, steps=100, step_timeout=1.0 if name == "Hangs" else 600.0)
    status = run_trial(spec, breaking)
    assert status["status"] == "failed"
    message = status["error"]["message"]
    assert message.startswith(f"environment 'breaking:{name}' {SAID[name]}"), message
    assert message.endswith("at step 7")
    assert "watch.py" in status["error"]["traceback"]
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_environment_that_hangs_in_compiled_code_ends_its_process_with_the_reason_written(breaking, monkeypatch):
    study = {"name": "s", "envs": ["breaking:HangsCompiled"], "agents": ["q_learning"], "seeds": 1, "steps": 100}
    (breaking / "study.yaml").write_text(json.dumps(study | {"step_timeout": 0.3}))
    code = "from mpagents import watch; watch.GRACE = 0.3; from mpagents.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "study.yaml", "--workers", "0"], cwd=breaking, capture_output=True, text=True
    )
    assert done.returncode == 70
    (file,) = breaking.glob("runs/s/*/*/*/status.json")
    status = json.loads(file.read_text())
    assert status["status"] == "failed"
    assert "'breaking:HangsCompiled' gave no answer within 0.3 s, at step 7" in status["error"]["message"]


def test_environment_steps_are_counted_on_in_a_continued_trial(breaking):
    env = {"id": "breaking:Base", "label": "good"}
    spec = trial({"name": "q_learning", "log_every": 10}, env, steps=40, checkpoint={"every": 10}, evaluation={"every": 40})
    interrupt(spec, breaking, 20)
    import breaking as module

    module.Base.step = lambda self, action: 1 / 0
    status = run_trial(spec, breaking)
    assert status["error"]["message"] == "environment 'breaking:Base' raised ZeroDivisionError: division by zero, at step 21"


def test_step_timeout_is_no_part_of_what_results_depend_on():
    assert trial("q_learning").hash == trial("q_learning", step_timeout=1.0).hash
    assert [trial("q_learning", step_timeout=value).step_timeout for value in (None, 2.5)] == [None, 2.5]
    with pytest.raises(InvalidInput, match="step_timeout: got 0; expected greater than 0"):
        trial("q_learning", step_timeout=0)


def test_evaluations_are_made_as_often_as_asked_also_below_the_agents_log_every(tmp_path):
    spec = trial({"name": "q_learning", "log_every": 5_000}, steps=2_000, evaluation={"every": 500, "episodes": 2})
    run_trial(spec, tmp_path)
    (found,) = results(tmp_path).values()
    assert [step for step, _ in found["curves"]["eval/mean_reward"]] == [500, 1_000, 1_500, 2_000]


# Study files


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("seeds: 1e19", "seeds"), ("seeds: 10000000000000000000", "seeds"), ("seeds: [10000000000000000000]", "seeds.0"),
        ("evaluation: {episodes: 1e13}", "evaluation.episodes"), ("steps: 1e308", "steps"), ("steps: 1e999", "steps"),
        ("checkpoint: {every: 1e40}", "checkpoint.every"),
        ("agents: [{name: q_learning, log_every: 1e30}]", "agents.0.log_every"),
    ],
)  # fmt: skip
def test_study_refuses_numbers_beyond_all_measure_by_name(text, place):
    key = text.partition(":")[0]
    sound = {"name": "a", "envs": ["FrozenLake-v1"], "agents": ["q_learning"]}
    values = {other: value for other, value in sound.items() if other != key} | parse_study(text)[0]
    with pytest.raises(InvalidInput) as caught:
        Study.from_values(values).trials()
    assert [str(problem).partition(":")[0] for problem in caught.value.problems] == [place]


def test_study_refuses_more_trials_than_it_can_hold():
    with pytest.raises(InvalidInput, match=r"seeds: 1,000,000 × 2 pairs; expected at most 1,000,000 trials"):
        Study.from_values({"name": "a", "envs": ["FrozenLake-v1"], "agents": ["q_learning", "sarsa"], "seeds": 10**6}).trials()


# Signals and Ray


def test_a_signal_that_a_callback_swallowed_still_stops_the_study():
    with interrupting.listening():
        kept = signal.signal(signal.SIGTERM, lambda number, frame: None)  # as Ray's own handler, whose SystemExit was lost
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(interrupting.Interrupted):
                interrupting.check_stopped()
            interrupting.check_stopped()  # told once
        finally:
            signal.signal(signal.SIGTERM, kept)
    assert signal.set_wakeup_fd(-1) == -1


def test_ray_is_reachable_from_this_machine_alone_and_leaves_nothing():
    before = set(os.listdir("/dev/shm"))  # noqa: PTH208
    found, ok = doctor._ray()
    assert ok, found
    assert "reachable from this machine alone" in found
    assert set(os.listdir("/dev/shm")) == before  # noqa: PTH208
    assert len(family(os.getpid())) == 1


@pytest.mark.parametrize("killed", [True, False])
def test_processes_die_with_the_one_that_began_them(killed, tmp_path):
    child = os.fork()
    if child == 0:
        with dying_with_this() as mark:
            other = subprocess.Popen(["sleep", "60"], env=os.environ | mark)
            (tmp_path / "pid").write_text(str(other.pid))
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)
    other = int((tmp_path / "pid").read_text())
    gone = time.monotonic() + 10
    while running(other) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not running(other)


def running(process):
    """Whether it is there, and not merely waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_strange_ray_without_authentication_is_warned_of(monkeypatch, capsys):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    ray_session.warn_of_strangers("127.0.0.1:6379")
    assert capsys.readouterr().err == ""
    ray_session.warn_of_strangers("10.0.0.7:6379")
    assert "the Ray at 10.0.0.7:6379 has no authentication" in capsys.readouterr().err
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_session.warn_of_strangers("10.0.0.7:6379")
    assert capsys.readouterr().err == ""


def test_doctor_tells_vulnerable_versions_open_ports_and_missing_authentication(monkeypatch):
    assert doctor._vulnerable()[1]
    monkeypatch.setattr(doctor, "_version", {"torch": "2.5.1+cu121", "ray": "2.54.0"}.get)
    assert doctor._vulnerable() == (
        "torch 2.5.1+cu121: CVE-2025-32434: torch.load runs code even with weights_only=True; upgrade to 2.6.0", False,
    )  # fmt: skip
    anywhere, here = ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(doctor, "listening", lambda: [(here, 6379), (anywhere, 8265), (anywhere, 22)])
    told, ok = doctor._clusters()
    assert (told.startswith("reachable from elsewhere: dashboard on 0.0.0.0, port 8265;"), ok) == (True, False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert doctor._authentication()[1] is False
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert doctor._authentication()[1] is True


def test_doctor_reads_addresses_as_the_kernel_writes_them():
    assert str(doctor._address(bytes.fromhex("0100007F"))) == "127.0.0.1"
    assert str(doctor._address(bytes.fromhex("0000000000000000FFFF00000100007F"))) == "127.0.0.1"
    assert str(doctor._address(bytes.fromhex("00000000000000000000000001000000"))) == "::1"
