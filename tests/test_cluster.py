"""A cluster of several nodes: one machine that plays a head and three nodes of one CPU each; and what needs none of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.fault_rows.outcome import (
    checkpoints,
    differing,
    processes_in,
    results,
    start,
    undisturbed,
    workers_of,
    write_study,
)  # fmt: skip
from mpagents import shipping, watch
from mpagents.cluster import Nodes, probe
from mpagents.configuration import InvalidInput
from mpagents.results.attempt import Attempt, Superseded
from mpagents.results.ledger import record_lost
from mpagents.specification import Resources, versions
from mpagents.study import Study
from mpagents.trial import run_trial, trial_steps
from tests.test_runner import wait_until
from tests.test_trial import trial

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
# A node that doesn't answer is declared dead after about 5 s instead of half a minute.
IMPATIENT = {"health_check_period_ms": 1_000, "health_check_timeout_ms": 2_000, "health_check_failure_threshold": 3}


# Attempts at one trial


@pytest.fixture(autouse=True)
def limits_are_left_as_they_were(monkeypatch):
    """Attempts that are interleaved in one process end in another order than they nest, which limits of time don't foresee."""
    monkeypatch.setattr(watch, "_limit", None)
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, handler)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def taken_to(spec, root, step):
    """A trial's generator, advanced at least so far."""
    steps = trial_steps(spec, root)
    for done, _ in steps:
        if done >= step:
            return steps
    raise AssertionError(f"ended before step {step}")


def test_attempt_that_is_superseded_stops_and_alters_nothing(tmp_path):
    spec = trial("q_learning")
    run_trial(spec, tmp_path / "calm")
    older, newer = taken_to(spec, tmp_path / "two", 2_000), taken_to(spec, tmp_path / "two", 3_000)
    before = files(tmp_path / "two")
    with pytest.raises(Superseded, match=r"attempt 1 at .*seed=3 on .* stops: another attempt has begun"):
        next(older)
    assert files(tmp_path / "two") == before
    with pytest.raises(StopIteration) as end:
        while True:
            next(newer)
    assert end.value.value["status"] == "finished"
    assert results(tmp_path / "two") == results(tmp_path / "calm")
    assert not list((tmp_path / "two" / spec.path).glob("attempt-*"))


def test_attempt_that_is_superseded_writes_nothing_even_where_it_does_not_look(tmp_path, monkeypatch):
    """Its last look may lie just before the newer one began: the renames themselves must fail."""
    spec = trial("q_learning")
    older, newer = taken_to(spec, tmp_path, 2_000), taken_to(spec, tmp_path, 3_000)
    before = files(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "check", lambda self: None)
        with pytest.raises(FileNotFoundError):
            list(older)
    after = files(tmp_path)
    assert {path for path in after if after[path] != before.get(path)} <= {path for path in before if ".mpagents.0000" in path}
    assert after.keys() == before.keys()
    list(newer)
    assert json.loads((tmp_path / spec.path / "status.json").read_text())["status"] == "finished"


def test_attempt_does_not_begin_once_another_was_given_the_trial(tmp_path):
    """A task that waited on a machine that was cut off: its number is older, though it starts later."""
    spec = trial("q_learning")
    older, newer = (Attempt.begin(tmp_path / spec.path).folder.name for _ in range(2))
    with pytest.raises(Superseded):
        next(trial_steps(spec, tmp_path, older))
    assert [path.name for path in (tmp_path / spec.path).iterdir()] == [newer]
    assert newer.startswith("attempt-2-")
    next(trial_steps(spec, tmp_path, newer))
    assert record_lost(tmp_path, spec, "gone")["status"] == "failed"


def test_attempt_of_a_lost_trial_can_no_longer_say_that_it_finished(tmp_path):
    spec = trial("q_learning")
    older = taken_to(spec, tmp_path, 2_000)
    told = record_lost(tmp_path, spec, "its worker process died 3 times")
    with pytest.raises(Superseded):
        list(older)
    assert json.loads((tmp_path / spec.path / "status.json").read_text()) == told


def test_attempt_takes_away_a_link_instead_of_what_it_leads_to(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/attempt-7-x").symlink_to(tmp_path / "outside")
    assert Attempt.begin(tmp_path / "trial").folder.name.startswith("attempt-8-")
    assert (tmp_path / "outside/kept").read_text() == "kept"
    assert len(list((tmp_path / "trial").iterdir())) == 1


# Resources, and what is sent


def nodes_of(monkeypatch, *resources: dict[str, float]) -> None:
    import ray

    there = [{"NodeID": str(i), "Alive": True, "Resources": has} for i, has in enumerate(resources)]
    monkeypatch.setattr(ray, "nodes", lambda: there)


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"), [(1, 0, 12), (2, 0, 5), (0.5, 0, 24), (1, 0.25, 8), (1, 0.1, 8), (4, 0.25, 2), (3, 0, 3)]
)
def test_nodes_take_as_many_trials_as_fit_on_each(monkeypatch, cpus, gpus, slots):
    nodes_of(monkeypatch, {"CPU": 8, "GPU": 2}, {"CPU": 3}, {"CPU": 1}, {"memory": 1})
    assert Nodes(Resources(cpus, gpus)).slots == slots
    assert Nodes(Resources(cpus, gpus), most=2).slots == 2


def test_nodes_refuse_a_trial_that_fits_on_none(monkeypatch):
    nodes_of(monkeypatch, {"CPU": 8, "GPU": 1}, {"CPU": 32})
    with pytest.raises(InvalidInput, match=r"resources: got 16 CPUs and 1 GPUs for a trial; .* 8 and 1"):
        Nodes(Resources(16, 1))


def test_study_takes_resources_and_refuses_wrong_ones_by_name():
    values = {"name": "a", "envs": ["FrozenLake-v1"], "agents": ["q_learning"]}
    study = Study.from_values(values | {"resources": {"cpus": 2, "gpus": 0.25}})
    assert study.resources == Resources(2.0, 0.25)
    assert [spec.hash for spec in study.trials().trials] == [spec.hash for spec in Study.from_values(values).trials().trials]
    with pytest.raises(InvalidInput, match=r"resources.cpus: got 0; expected greater than 0"):
        Study.from_values(values | {"resources": {"cpus": 0}})


def test_probe_says_what_is_wrong_on_a_node(tmp_path, monkeypatch):
    token = tmp_path / "study/.shared-x/token"
    token.parent.mkdir(parents=True)
    token.touch()
    assert probe(str(token), versions()["mpagents"]) is None
    assert list(token.parent.iterdir()) == [token]
    assert "install the same" in probe(str(token), "0.0.1")
    monkeypatch.setattr("mpagents.cluster.SEEN_SECONDS", 0.2)
    assert "isn't the folder of this machine" in probe(str(tmp_path / "other/.shared-x/token"), versions()["mpagents"])
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert f"can't write into {tmp_path / 'study'}: Permission denied" in probe(str(token), versions()["mpagents"])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a module of its own, in use."""
    (tmp_path / "of_mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import of_mine  # noqa: F401

    yield tmp_path
    del sys.modules["of_mine"]


def test_shipping_sends_a_folder_whose_modules_are_in_use_without_results(project, monkeypatch):
    (project / "others/old-study").mkdir(parents=True)
    (project / "others/old-study/study.json").write_text("{}")
    (project / "env").mkdir()
    (project / "env/pyvenv.cfg").write_text("")
    sent = shipping.runtime_env(project / "runs/study")
    assert sent["working_dir"] == str(project)
    assert set(sent["excludes"]) == {".?*", "__pycache__", "/runs", "/others/old-study", "/env"}
    assert "/study" in shipping.runtime_env(project / "study")["excludes"]
    monkeypatch.setattr(shipping, "MOST", 1_000)
    (project / "large.bin").write_bytes(bytes(2_000))
    with pytest.raises(ValueError, match=r"more than 0 MB .* \(the largest: large.bin, 0.0 MB\); name what .* \.rayignore"):
        shipping.runtime_env(None)
    (project / ".rayignore").write_text("large.bin\n")
    assert shipping.runtime_env(None)["working_dir"] == str(project)
    del sys.modules["of_mine"]
    assert shipping.runtime_env(None) == {}
    sys.modules["of_mine"] = pytest


def test_shipping_looks_for_modules_in_the_copy(tmp_path, monkeypatch):
    (tmp_path / "copy/src").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(sys, "path", ["/lib"])
    monkeypatch.setenv(shipping.SENT, "/home/me/project")
    shipping.use_path(["/home/me/project", "/home/me/project/src", "/home/me/project/.venv/lib", "/opt"])
    here = str(tmp_path / "copy")
    assert sys.path == [here, f"{here}/src", "/home/me/project/.venv/lib", "/opt", "/lib"]


# A cluster


@pytest.fixture(scope="module")
def cluster():
    """A head and three nodes."""
    from ray.cluster_utils import Cluster

    head = NODE | {"include_dashboard": False, "_system_config": IMPATIENT}
    found = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(3):
        found.add_node(**NODE)
    yield found
    found.shutdown()


def run_there(cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`--address auto`, which finds the cluster as on one of its machines."""
    command = [sys.executable, "-m", "mpagents", "run", "study.yaml", "--address", "auto", *arguments]
    there = os.environ | {"RAY_ADDRESS": cluster.address}
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True)


SPY = """
import os, time
from pathlib import Path
import gymnasium
from gymnasium.spaces import Discrete


class Spy(gymnasium.Env):
    '''Says which node it runs on; pays 1 where it was imported from a copy that was sent.'''

    observation_space = action_space = Discrete(2)

    def __init__(self, folder):
        self.folder = folder

    def reset(self, *, seed=None, options=None):
        import ray

        super().reset(seed=seed)
        time.sleep(0.05)
        Path(self.folder, ray.get_runtime_context().get_node_id()).touch()
        return 0, {}

    def step(self, action):
        return 0, float("runtime_resources" in __file__), True, False, {}
"""


@pytest.fixture
def spied(tmp_path):
    """A folder with a study of SPY; gives the nodes that its trials ran on."""
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "seen").mkdir()
    study = {
        "name": "spread", "envs": [{"id": "spy:Spy", "kwargs": {"folder": str(tmp_path / "seen")}}], "agents": ["q_learning"],
        "seeds": 8, "steps": 40, "evaluation": {"every": 40, "episodes": 5},
    }  # fmt: skip
    write_study(tmp_path, study)
    return lambda: {path.name for path in (tmp_path / "seen").iterdir()}


@pytest.mark.slow
def test_trials_run_on_all_nodes_from_modules_that_were_sent(cluster, tmp_path, spied):
    done = run_there(cluster, tmp_path, "--json", "--out", str(tmp_path / "shared"))
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)["summary"]
    assert (row["mean_reward"], row["seeds_finished"]) == (1.0, 8)
    assert len(spied()) == 4


@pytest.mark.slow
def test_trials_go_where_their_resources_are(cluster, tmp_path, spied):
    refused = run_there(cluster, tmp_path, "--set", "resources.gpus=0.25")
    assert refused.returncode == 2
    assert "resources: got 1 CPUs and 0.25 GPUs for a trial; the largest node has 1 and 0" in refused.stderr
    node = cluster.add_node(**NODE, num_gpus=1)
    try:
        done = run_there(cluster, tmp_path, "--set", "resources={cpus: 0.25, gpus: 0.25}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert spied() == {node.node_id}
    finally:
        cluster.remove_node(node)


@contextlib.contextmanager
def node_with_a_folder_of_its_own(cluster, folder: Path):
    """Another node, where an empty file system lies over the folder."""
    start = f"mount -t tmpfs none {folder} && exec ray start --address={cluster.address} --num-cpus=1 --block"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", start]
    process = subprocess.Popen(
        command, env=os.environ | {"PATH": path}, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.slow
def test_node_that_does_not_share_the_folder_is_named_before_anything_runs(cluster, tmp_path):
    out = tmp_path / "shared"
    out.mkdir()
    if subprocess.run(["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", str(out)]).returncode:
        pytest.skip("needs a mount namespace")
    write_study(tmp_path, {"name": "s", "envs": ["FrozenLake-v1"], "agents": ["q_learning"], "seeds": 4, "steps": 100})
    with node_with_a_folder_of_its_own(cluster, out):
        wait_until(lambda: alive(cluster) == 5, 60, "the fifth node")
        done = run_there(cluster, tmp_path, "--out", str(out))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("node ")]
    assert f"{out / 's'} isn't the folder of this machine there" in line
    assert "--out" in line
    assert [path.name for path in (out / "s").iterdir() if path.is_dir()] == []
    wait_until(lambda: alive(cluster) == 4, 60, "the fifth node to go")


def alive(cluster) -> int:
    code = f"import ray; ray.init({cluster.address!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_trial_of_a_node_that_is_cut_off_continues_elsewhere_and_nothing_is_written_twice(cluster, tmp_path):
    """The node and its worker stand still; the trial goes on elsewhere; then the worker wakes and must not write."""
    calm = undisturbed(tmp_path)
    process = start(tmp_path, "run", "study.yaml", "--address", cluster.address, "--json")
    stopped, node = [], None
    try:
        wait_until(lambda: len(checkpoints(tmp_path / "runs/slow")) == 4, 60, "a checkpoint of each trial")
        node, raylet, worker = wait_until(lambda: busy(cluster), 60, "a trial on a node")
        stopped = [raylet, worker]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, output + errors
        before = files(tmp_path / "runs/slow")
        assert max(len(list(path.glob("events.*"))) for path in tmp_path.glob("runs/slow/*/*/seed=*")) == 2
        assert differing(results(tmp_path / "runs/slow"), calm) == 0
        os.kill(worker, signal.SIGCONT)
        time.sleep(5)
        late = files(tmp_path / "runs/slow")
        changed = {path for path in late if late[path] != before.get(path)}
        assert all("events.out" in path for path in changed)
        assert differing(results(tmp_path / "runs/slow"), calm) == 0
    finally:
        let_go(cluster, process, node, stopped)
    assert not processes_in(tmp_path)


def let_go(cluster, process, node, stopped):
    """End a command, wake what was stopped, and take its node away."""
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    process.kill()
    if node is not None:
        cluster.remove_node(node, allow_graceful=False)


def busy(cluster):
    """(node, its raylet's process, its worker's) of one that runs a trial, not the head."""
    for node in cluster.worker_nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        for worker in workers_of(raylet):
            return node, raylet, worker
    return None


def searching(cluster):
    """(node, its raylet's process, its worker's) of one that trains a configuration of a search, not the head."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            raylet = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if raylet in raylets and b"ResourceTrainable" in (entry / "cmdline").read_bytes():
                return raylets[raylet], raylet, int(entry.name)
    return None


@pytest.mark.slow
def test_search_goes_on_without_a_node_that_is_cut_off_and_nothing_is_written_twice(cluster, tmp_path, spied):
    """Of modules that were sent. The node stands still as it trains, and wakes when all is over."""
    search = {"space": {"agents.q_learning.alpha": {"uniform": [0.1, 0.9]}}, "num_samples": 2, "seeds": 2, "finalists": 1}
    study = json.loads((tmp_path / "study.yaml").read_text())
    write_study(tmp_path, study | {"seeds": 1, "steps": 90, "evaluation": {"every": 30, "episodes": 3}, "tune": search})
    folder = tmp_path / "runs/spread"
    process = start(tmp_path, "tune", "study.yaml", "--address", cluster.address, "--json")
    stopped, node = [], None
    try:
        node, *stopped = wait_until(lambda: checkpoints(folder / "search") and searching(cluster), 120, "a search on a node")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        output, errors = process.communicate(timeout=150)  # the finals ask every node whether it shares the folder: 180 s
        assert process.returncode == 0, output + errors
        assert json.loads(output)["tried"] == {"Spy~q_learning": {"finished": 2, "stopped": 0, "failed": 0}}
        lines = map(json.loads, (folder / "ledger/Spy~q_learning.jsonl").read_text().splitlines())
        told = sorted((line["id"], line["mark"], line["value"]) for line in lines if line["event"] == "reported")
        assert told == [(f"c{i:04}", mark, 1.0) for i in range(2) for mark in (1, 2, 3)]  # 1: from the copy
        assert len(spied()) > 1
        before = files(folder)
        os.kill(stopped[1], signal.SIGCONT)
        time.sleep(5)
        late = files(folder)
        assert late.keys() == before.keys()
        assert all("events.out" in path for path in late if late[path] != before[path])
    finally:
        let_go(cluster, process, node, stopped)
    assert not processes_in(tmp_path)
