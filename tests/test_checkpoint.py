"""Checkpoints come back to the bit, are whole or not there, and every damage is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpagents.results.checkpoint import DamagedCheckpoint, load_checkpoint, load_latest, save_checkpoint, steps
from tests.test_trial import same_state

STATE = {
    "table": np.arange(6, dtype=np.float64).reshape(2, 3),
    "flags": np.array([True, False]),
    "scalar": np.int32(7),
    "nested": {"list": [1, 2.5, "text", None, np.array([1, 2])], "pair": (1, (True, 0.1)), "big": 2**120},
    "weights": torch.tensor([1.0, -2.0], dtype=torch.bfloat16),
    "empty": np.zeros((0, 3)),
    "named": {"a": {"b": np.zeros(1), "/": np.ones(2)}, "a/b": np.ones(1), "a/": {"": np.full(1, 2.0)}, "~1": np.full(1, 3.0)},
    "marks": [{"tensor": 1}, {"tuple": [2]}, {"block": {"array": 3, "scalar": 4}}, {"dict": {"dict": ()}}],
}


def test_checkpoint_round_trip_is_exact(tmp_path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, 5, STATE, keep=2))
    assert loaded["nested"]["pair"] == (1, (True, 0.1))
    assert loaded["nested"]["big"] == 2**120
    assert loaded["nested"]["list"][:4] == [1, 2.5, "text", None]
    assert loaded["marks"] == STATE["marks"]
    assert same_state(loaded["named"], STATE["named"])
    for key in ("table", "flags", "empty"):
        assert np.array_equal(loaded[key], STATE[key])
        assert loaded[key].dtype == STATE[key].dtype
    assert loaded["scalar"].dtype == np.int32
    assert torch.equal(loaded["weights"], STATE["weights"])


def test_checkpoint_keeps_the_last_and_the_best(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save_checkpoint(tmp_path, step, {"x": step}, keep=2, best=2 if step >= 2 else None)
    assert steps(tmp_path) == [2, 4, 5]
    assert load_latest(tmp_path) == (5, {"x": 5})


@pytest.mark.parametrize("name", ["state.json", "arrays.safetensors", "tensors.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_checkpoint_damage_is_found_and_the_one_before_used(tmp_path, capsys, name, damage):
    save_checkpoint(tmp_path, 1, STATE, keep=2)
    file = save_checkpoint(tmp_path, 2, STATE, keep=2) / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(tmp_path / "step=2")
    step, _ = load_latest(tmp_path)
    assert step == 1
    assert "step=2" in capsys.readouterr().err


def test_checkpoint_that_was_never_finished_does_not_count(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, STATE, keep=2)
    monkeypatch.setattr("mpagents.results.checkpoint._manifest", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, 2, STATE, keep=2)
    assert steps(tmp_path) == [1]


def test_checkpoint_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="'/a/b' is a object"):
        save_checkpoint(tmp_path, 1, {"a": {"b": object()}}, keep=1)
