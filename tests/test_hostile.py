"""What may have been sent by somebody else is read without running it, and nothing is written outside the output folder.

Each case is handed a folder to put its artefact into, and does with it what a user would. Had any payload run, or any link been
written through, `canary` would be there or `outside` be changed: the fixture looks after every case.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import generative
from generative import recordings
from generative.recordings import Recording
from generative.storage import _hash
from mpagents.configuration import InvalidInput
from mpagents.results.checkpoint import DamagedCheckpoint, _manifest, load_checkpoint, load_latest, save_checkpoint
from mpagents.results.checkpoint import _hash as hash_of_file
from mpagents.results.results import Results
from mpagents.runner import run
from mpagents.study import Study
from mpagents.study_file import MAX_BYTES, apply_overrides, parse_study, read_study_file
from mpagents.trained import load_trained
from mpagents.trial import run_trial

ESCAPE = "\x1b]0;owned\x07"
SCRIPT = "<script>alert(1)</script>"
DEEP = "[" * 100_000 + "]" * 100_000
VALUES = {
    "name": "small", "envs": ["FrozenLake-v1"], "agents": ["q_learning"], "seeds": 1, "steps": 200,
    "evaluation": {"every": 100, "episodes": 2}, "checkpoint": {"every": 100},
}  # fmt: skip


class Arena:
    """A folder for the artefact, one that must stay as it is, and a file that a payload would create."""

    def __init__(self, root: Path) -> None:
        self.inside, self.outside, self.canary = root / "inside", root / "outside", root / "canary"
        self.inside.mkdir()
        self.outside.mkdir()
        (self.outside / "kept").write_text("as it was")

    def pickle(self) -> bytes:
        return pickle.dumps(_Payload(str(self.canary)))

    def state(self) -> dict[str, tuple]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in [self.outside, *self.outside.rglob("*")]
        }


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def arena(tmp_path, monkeypatch):
    found = Arena(tmp_path)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "hostile_one.py").write_text(f"open({str(found.canary)!r}, 'w')\nclass Model: pass\n")
    monkeypatch.syspath_prepend(modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recordings, "cache_folder", lambda: tmp_path / "cache/deep/down")
    before, around = found.state(), {path.name for path in tmp_path.iterdir()}
    yield found
    assert not found.canary.exists(), "a payload was run"
    assert found.state() == before, "something was written outside"
    assert {path.name for path in tmp_path.iterdir()} - around <= {"cache"}, "something was written beside"


# Checkpoints: a folder whose files say what they like, with hashes that are right


def _checkpoint(arena: Arena, files: dict[str, bytes], manifest: bytes | None = None) -> None:
    folder = arena.inside / "step=5"
    save_checkpoint(arena.inside, 5, {"x": np.zeros(2), "y": torch.zeros(2)}, keep=1)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    hashes = {path.name: hash_of_file(path) for path in folder.iterdir() if path.name != "manifest.json"}
    (folder / "manifest.json").write_bytes(manifest or _manifest(5, hashes))
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match="all checkpoints are damaged"):
        load_latest(arena.inside)


def _named(name: str) -> bytes:
    return _manifest(5, {name: "0" * 64})


def _lying_header(size: int) -> bytes:
    return struct.pack("<Q", size) + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' + bytes(8)


def _header(shape: list[int], end: int) -> bytes:
    text = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


CHECKPOINTS = {
    "pickle as the tree": lambda a: _checkpoint(a, {"state.json": a.pickle()}),
    "pickle as arrays": lambda a: _checkpoint(a, {"arrays.safetensors": a.pickle()}),
    "pickle as tensors": lambda a: _checkpoint(a, {"tensors.safetensors": a.pickle()}),
    "npz of objects as arrays": lambda a: _checkpoint(
        a, {"arrays.safetensors": _npz({"x": np.array([_Payload(str(a.canary))])})}
    ),
    "torch.save as tensors": lambda a: _checkpoint(a, {"tensors.safetensors": _torch_file(a)}),
    "nested without end": lambda a: _checkpoint(a, {"state.json": DEEP.encode()}),
    "an array that isn't there": lambda a: _checkpoint(a, {"state.json": b'{"x": {"array": "/z", "scalar": false}}'}),
    "a tree of wrong kinds": lambda a: _checkpoint(a, {"state.json": b'{"x": {"array": [], "scalar": 1}}'}),
    "a header of 2 to the 63": lambda a: _checkpoint(a, {"arrays.safetensors": _lying_header(2**63)}),
    "a shape that overflows": lambda a: _checkpoint(a, {"arrays.safetensors": _header([2**62, 4], 8)}),
    "offsets beyond the end": lambda a: _checkpoint(a, {"arrays.safetensors": _header([2**30], 2**32)}),
    "a manifest that leads out": lambda a: _checkpoint(a, {}, _named("../../outside/kept")),
    "a manifest of an absolute path": lambda a: _checkpoint(a, {}, _named(str(a.outside / "kept"))),
    "a manifest of another kind": lambda a: _checkpoint(a, {}, b"[]"),
    "a manifest nested without end": lambda a: _checkpoint(a, {}, DEEP.encode()),
    "a manifest of a newer format": lambda a: _checkpoint(a, {}, b'{"format": 1e999, "step": 5, "sha256": {}}'),
}


def _npz(columns: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **columns)
    return content.getvalue()


def _torch_file(arena: Arena) -> bytes:
    content = io.BytesIO()
    torch.save({"x": _Payload(str(arena.canary))}, content)
    return content.getvalue()


# Models


def _model(arena: Arena, content: object = None, raw: bytes | None = None, **changes: object) -> None:
    path = arena.inside / "model.safetensors"
    if raw is None:
        generative.save(generative.build("mlp", in_features=2, out_features=2), path)
        tensors = safetensors.torch.load(path.read_bytes())
        with safetensors.safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["generative"])
        text = json.dumps(content if content is not None else told | changes)
        raw = safetensors.torch.save(tensors, metadata={"generative": text, "sha256": _hash(text, tensors)})
    path.write_bytes(raw)
    with pytest.raises(ValueError):
        generative.load(path)


MODELS = {
    "a function": lambda a: _model(a, model="os:system"),
    "a module on the path": lambda a: _model(a, model="hostile_one:Model"),
    "a module of ours that imports another": lambda a: _model(a, model="generative.storage:os"),
    "a relative module": lambda a: _model(a, model=".hostile_one:Model"),
    "no module": lambda a: _model(a, model="generative.hostile_one:Model"),
    "a prefix of ours": lambda a: _model(a, model="generative.../hostile_one:Model"),
    "no text as a name": lambda a: _model(a, model=["mlp"]),
    "a configuration of another kind": lambda a: _model(a, config=[1, 2]),
    "a setting of another kind": lambda a: _model(a, config={"in_features": "2; import os", "out_features": 2}),
    "a network too large for any machine": lambda a: _model(a, config={"in_features": 10**15, "out_features": 10**15}),
    "aliases of another kind": lambda a: _model(a, aliases=["x"]),
    "an alias of nothing": lambda a: _model(a, aliases={"x": "nowhere"}),
    "a format without end": lambda a: _model(a, format=float("inf")),
    "a description that is no mapping": lambda a: _model(a, content=[1]),
    "a pickle": lambda a: _model(a, raw=a.pickle()),
    "torch.save": lambda a: _model(a, raw=_torch_file(a)),
    "a lying header": lambda a: _model(a, raw=_lying_header(2**40)),
    "a header nested without end": lambda a: _model(a, raw=struct.pack("<Q", len(DEEP)) + DEEP.encode()),
}


# Recordings


def _recording(arena: Arena, shard: bytes | None = None, **changes: object) -> None:
    folder = arena.inside / "recording"
    folder.mkdir()
    columns = {"x": np.zeros((4, 2), np.float32), "first": np.ones(4, bool)}
    content = _npz(columns) if shard is None else shard
    (folder / "00000.npz").write_bytes(content)
    import hashlib

    described = {name: {"dtype": str(column.dtype), "shape": list(column.shape[1:])} for name, column in columns.items()}
    manifest = {
        "format": 1, "complete": True, "steps": 4, "num_actions": None, "columns": described,
        "shards": [{"file": "00000.npz", "counts": [4], "sha256": hashlib.sha256(content).hexdigest()}],
    }  # fmt: skip
    for key, value in changes.items():
        manifest[key] = value(manifest[key])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError):
        Recording(str(folder)).sample(2, torch.Generator())


def _also(name: str):
    return lambda columns: {**columns, name: columns["x"]}


def _shard(**changes: object):
    return lambda shards: [{**shards[0], **changes}]


def _zip(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return content.getvalue()


def _npy(shape: str, dtype: str = "'<f4'") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(8)


RECORDINGS = {
    "a column that leads out": lambda a: _recording(a, columns=_also("../../../../outside/kept")),
    "a column of an absolute path": lambda a: _recording(a, columns=_also(str(a.outside / "kept"))),
    "a column with a control character": lambda a: _recording(a, columns=_also("x\n" + ESCAPE)),
    "a column of objects": lambda a: _recording(a, columns=lambda c: {**c, "x": {"dtype": "O", "shape": [2]}}),
    "a shard that leads out": lambda a: _recording(a, shards=_shard(file="../../outside/kept")),
    "counts below 0": lambda a: _recording(a, shards=_shard(counts=[8, -4])),
    "counts without end": lambda a: _recording(a, shards=_shard(counts=[10**18])),
    "a pickle as a shard": lambda a: _recording(a, a.pickle()),
    "an npz of objects": lambda a: _recording(
        a, _npz({"x": np.array([_Payload(str(a.canary))] * 4), "first": np.ones(4, bool)})
    ),
    "members that lead out": lambda a: _recording(a, _zip({"../../outside/kept": b"other", "x.npy": b"", "first.npy": b""})),
    "a member larger than memory": lambda a: _recording(a, _zip({"x.npy": _npy("(4, 10000000000000)"), "first.npy": b""})),
    "a member with code for a type": lambda a: _recording(
        a, _zip({"x.npy": _npy("(4, 2)", "__import__('os')"), "first.npy": b""})
    ),
    "a zip cut short": lambda a: _recording(a, _npz({"x": np.zeros((4, 2), np.float32), "first": np.ones(4, bool)})[:-30]),
}


# Trials' folders, for `mpagents evaluate` and `load_agent`


def _trained(arena: Arena, message: str | None = None, **changes: object) -> None:
    (spec,) = Study.from_values(VALUES).trials().trials
    assert run_trial(spec, arena.inside)["status"] == "finished"
    folder = arena.inside / spec.path
    values = json.loads((folder / "trial.json").read_text())
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(values.get(key), dict) and isinstance(value, dict) else value
    (folder / "trial.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_trained(folder)


def _of_pandas(arena: Arena) -> None:
    (arena.inside / "p.pkl").write_bytes(arena.pickle())
    kwargs = {"filepath_or_buffer": str(arena.inside / "p.pkl")}
    _trained(arena, "is no class of environments", env={"id": "pandas:read_pickle", "kwargs": kwargs})


def _of_torch(arena: Arena) -> None:
    (arena.inside / "p.pt").write_bytes(_torch_file(arena))
    _trained(arena, "is no class", env={"id": "torch:load", "kwargs": {"f": str(arena.inside / "p.pt"), "weights_only": False}})


def _encoder_that_names_another(arena: Arena) -> None:
    """The encoder's file holds another model than trial.json says."""
    from mpagents.encoder_specification import EncoderJob, EncoderSpec
    from mpagents.environments import EnvironmentSpec
    from mpagents.results.files import write_json

    data = {"steps": 1, "num_envs": 1, "policy": "random", "epsilon": 0.0, "length": None, "target": None}
    settings = {"mode": "frozen", "key": None, "size": None, "grey": False, "coarsest": False}
    encoder = EncoderSpec("e", "mlp", "mlp", None, None, settings, {}, {"steps": 0}, data)
    job = EncoderJob(EnvironmentSpec("FrozenLake-v1", "FrozenLake-v1"), encoder)
    folder = arena.inside / job.path
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"status": "finished"})
    _model(arena, model="hostile_one:Model")
    shutil.copy(arena.inside / "model.safetensors", folder / "encoder.safetensors")
    _trained(arena, "isn't imported", encoder=job.to_json()["encoder"])


TRIALS = {
    "os.system as an environment": lambda a: _trained(
        a, "isn't imported", env={"id": "os:system", "kwargs": {"command": f"touch {a.canary}"}}
    ),
    "subprocess as an environment": lambda a: _trained(
        a, "isn't imported", env={"id": "subprocess:Popen", "kwargs": {"args": ["touch", str(a.canary)]}}
    ),
    "a function of an installed package": _of_pandas,
    "torch.load as an environment": _of_torch,
    "a module on the path as an environment": lambda a: _trained(a, "isn't imported", env={"id": "hostile_one:Env-v0"}),
    "a module that is a program": lambda a: _trained(a, "isn't imported", env={"id": "pip.__main__:Env-v0"}),
    "exec as a wrapper": lambda a: _trained(a, "isn't imported", env={"wrappers": ["builtins:exec"]}),
    "a module on the path as a wrapper": lambda a: _trained(a, "isn't imported", env={"wrappers": ["hostile_one:Model"]}),
    "a module on the path as an agent": lambda a: _trained(a, "isn't imported", agent={"name": "hostile_one:Model"}),
    "os as an agent": lambda a: _trained(a, "isn't imported", agent={"name": "os:system"}),
    "an encoder of another model than it says": _encoder_that_names_another,
    "an encoder of another kind": lambda a: _trained(a, None, encoder=["x"]),
    "an environment of another kind": lambda a: _trained(a, None, env=["x"]),
    "a seed without end": lambda a: _trained(a, None, seed=float("inf")),
}


# Study files


def _study(text: str | bytes, *overrides: str):
    def read(arena: Arena) -> None:
        file = arena.inside / "study.yaml"
        file.write_bytes(text.replace("CANARY", str(arena.canary)).encode() if isinstance(text, str) else text)
        with pytest.raises(InvalidInput):
            values, _ = read_study_file(file)
            Study.from_values(apply_overrides(values, overrides)).trials()

    return read


def _with(**changes: object):
    return _study(json.dumps({**VALUES, **changes}))


BOMB = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
MERGED = "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi"))
STUDIES = {
    "a tag that calls": _study("name: !!python/object/apply:os.system ['touch CANARY']"),
    "a tag that makes": _study("name: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]"),
    "a tag that names": _study("name: !!python/name:os.system ''"),
    "a tag that imports": _study("name: !!python/module:hostile_one ''"),
    "a tag in an override": _study(json.dumps(VALUES), "seeds=!!python/object/apply:os.system ['touch CANARY']"),
    "aliases of aliases": _study("a: &a [x, x, x, x, x, x, x, x, x]\n" + BOMB),
    "aliases of aliases as a key": _study("a: &a [x, x, x, x, x, x, x, x, x]\n" + BOMB + "? *i\n: 1\n"),
    "mappings merged without end": _study("a: &a {x: 1}\n" + MERGED),
    "an alias of itself": _study("name: &a [*a]"),
    "nested without end": _study("name: " + DEEP),
    "too large": _study(b"#" * (MAX_BYTES + 1)),
    "a number without end": _study(f"steps: {'9' * 10_000}"),
    "no text": _study(b"\xff\xfe\x00\x00\x01"),
    "a name that leads out": _with(name="../outside"),
    "a name that is an absolute path": _with(name="/tmp/out"),
    "a name with control characters": _with(name=f"a{ESCAPE}"),
    "a name with a newline at its end": _with(name="small\n"),
    "a name of HTML": _with(name=SCRIPT),
    "a name of dots": _with(name=".."),
    "a label that leads out": _with(envs=[{"id": "FrozenLake-v1", "label": "../../outside"}]),
    "a label of HTML": _with(agents=[{"name": "q_learning", "label": SCRIPT}]),
    "a label with a null": _with(agents=[{"name": "q_learning", "label": "a\x00b"}]),
    "an agent that is a function": _with(agents=["os:system"]),
}


# Results that are read: reports, summaries, the table on the terminal


def _results(arena: Arena, trials: list[object], status: dict[str, object] | None = None, **changes: object) -> str:
    folder = arena.inside / "study"
    write = folder / "env/agent/seed=0"
    write.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"name": "n", "study": {}, "versions": {}, "trials": trials, **changes}))
    (write / "trial.json").write_text("{}")
    (write / "status.json").write_text(json.dumps(status or {"status": "finished", "final": {"mean_reward": 1.0}}))
    return Results(folder).write().read_text()


def _in_report(**parts: object):
    def read(arena: Arena) -> None:
        page = _results(arena, **{"trials": ["env/agent/seed=0"], **parts})  # type: ignore[arg-type]
        assert SCRIPT not in page
        assert not re.search(r"<img[^>]*onerror", page)

    return read


def _left_out(path: object):
    def read(arena: Arena) -> None:
        page = _results(arena, ["env/agent/seed=0", path])
        assert "0 of 1 trial" in page or "1 of 1 trial" in page
        assert SCRIPT not in page

    return read


FAILED = {"status": "failed", "error": {"type": SCRIPT, "message": SCRIPT, "traceback": SCRIPT}}
REPORTS = {
    "HTML in a message": _in_report(status=FAILED),
    "HTML in the study's name": _in_report(name=SCRIPT),
    "HTML in the study": _in_report(study={SCRIPT: SCRIPT}),
    "HTML in the versions": _in_report(versions={SCRIPT: SCRIPT}),
    "HTML in what was skipped": _in_report(
        skipped=[{"env": SCRIPT, "agent": SCRIPT, "reason": "<img src=x onerror=alert(1)>"}]
    ),
    "HTML in a trial's folder": _in_report(trials=["env/agent/seed=0", f"{SCRIPT.replace('/', '')}/a/seed=1"]),
    "a trial that leads out": _left_out("../outside/seed=0"),
    "a trial of an absolute path": _left_out("/outside/seed=0"),
    "a trial with control characters": _left_out(f"env/{ESCAPE}/seed=0"),
    "a trial that is no text": _left_out({"x": 1}),
}


# Links in a study's folder that is continued


def _linked(*place: str):
    def go(arena: Arena) -> None:
        study = Study.from_values(VALUES)
        run(study, out=arena.inside, workers=0, show="quiet")
        folder = arena.inside / "small"
        trial = folder / "FrozenLake-v1/q_learning/seed=0"
        path = Path(str(folder), *(part.replace("TRIAL", str(trial.relative_to(folder))) for part in place))
        kept = arena.outside / ("kept" if path.is_file() else "")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        path.symlink_to(kept)
        (trial / "status.json").unlink(missing_ok=True)  # it isn't finished
        try:
            run(study, out=arena.inside, workers=0, show="quiet")
        except (ValueError, OSError) as error:
            assert str(error)

    return go


LINKS = {
    "the lock": _linked(".lock"),
    "an environment's folder": _linked("FrozenLake-v1"),
    "an agent's folder": _linked("FrozenLake-v1", "q_learning"),
    "a trial's folder": _linked("TRIAL"),
    "a trial's metrics": _linked("TRIAL", "metrics.jsonl"),
    "a trial's status": _linked("TRIAL", "status.json"),
    "a trial's checkpoints": _linked("TRIAL", "checkpoint"),
    "the newest checkpoint": _linked("TRIAL", "checkpoint", "step=200"),
    "the study": _linked("study.json"),
    "the report": _linked("report.html"),
}

GROUPS = {
    "checkpoint": CHECKPOINTS, "model": MODELS, "recording": RECORDINGS, "trial": TRIALS, "study": STUDIES, "report": REPORTS,
    "link": LINKS,
}  # fmt: skip
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}


@pytest.mark.parametrize("name", CASES)
def test_hostile_artefacts_run_nothing_and_write_nothing_outside(arena, name):
    CASES[name](arena)


def test_a_payload_would_be_noticed(tmp_path):
    found = Arena(tmp_path)
    before = found.state()
    pickle.loads(found.pickle())  # noqa: S301 - what every case above must not do
    assert found.canary.exists()
    (found.outside / "kept").write_text("changed")
    assert found.state() != before


def test_fresh_takes_a_link_away_and_not_what_it_leads_to(arena):
    study = Study.from_values(VALUES)
    run(study, out=arena.inside, workers=0, show="quiet")
    (arena.inside / "small/more").symlink_to(arena.outside)
    run(study, out=arena.inside, workers=0, show="quiet", fresh=True)
    assert not os.path.lexists(arena.inside / "small/more")


def test_a_study_file_that_never_ends_is_read_no_further_than_its_limit():
    with pytest.raises(InvalidInput, match="more than 1,000,000 bytes"):
        read_study_file(Path("/dev/zero"))


def test_yaml_is_parsed_by_the_safe_loader_alone():
    with pytest.raises(InvalidInput, match="could not determine a constructor"):
        parse_study("name: !!python/name:os.system ''")
