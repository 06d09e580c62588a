"""Compiled graphs: the same function, arguments changed in place, libraries that are kept and can't go stale."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from mpagents.deep import compiling, targets
from mpagents.deep.compiling import WORTH_IT, graph, graph_folder, resolve
from mpagents.deep.graph_index import note_of


def descend(parameters, state, batch):
    """In place on two arguments; nested arguments and results."""
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        loss = ((batch["x"] @ leaf - batch["y"]) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, [leaf])
    state["mean"].mul_(0.9).add_(gradient)
    parameters.sub_(0.1 * state["mean"])
    return {"loss": loss.detach()}, (gradient,)


def arguments():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator)
    return torch.zeros(3), {"mean": torch.zeros(3)}, {"x": x, "y": x.sum(dim=1)}


def test_resolve_follows_the_wish_and_the_number_of_updates(monkeypatch, capsys):
    assert [resolve(wish, WORTH_IT) for wish in ("auto", "true", True, "false", False)] == [True, True, True, False, False]
    assert not resolve("auto", WORTH_IT - 1)
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    assert not resolve("true", 1)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not resolve("false", WORTH_IT)
    assert capsys.readouterr().err == ""


def test_graph_not_used_is_the_function_itself():
    assert graph(descend, "key", False) is descend


def test_graph_that_the_compiler_refuses_runs_eagerly_and_says_so(monkeypatch, tmp_path, capsys):
    def refuse(*_):
        raise RuntimeError("NotImplementedError: SliceView")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "_library", refuse)
    plain, same = arguments(), arguments()
    torch.testing.assert_close(graph(descend, "refused", True)(*same), descend(*plain))
    torch.testing.assert_close(same, plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert "running eagerly" in line


def test_library_that_kills_a_process_is_tried_once_and_never_loaded_here(monkeypatch, tmp_path, capsys):
    """Training goes on eagerly, later processes don't compile it again."""
    built = []

    def compiled(traced, examples, options):
        built.append(Path(options["aot_inductor.output_path"]))
        built[-1].touch()  # no library
        return built[-1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch._inductor, "aot_compile", compiled)
    for _ in range(2):
        monkeypatch.setattr(compiling, "_GRAPHS", {})
        torch.testing.assert_close(graph(descend, "killer", True)(*arguments()), descend(*arguments()))
        assert "running eagerly" in capsys.readouterr().err
    assert len(built) == 1


@pytest.mark.slow
def test_graph_computes_what_the_function_does_and_later_processes_load_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "_GRAPHS", {})
    plain, fast, compiled = arguments(), arguments(), graph(descend, "descend", True)
    for _ in range(3):
        expected, found = descend(*plain), compiled(*fast)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(fast, plain)
    (library,) = graph_folder().glob("*.so")
    assert "compiling" in capsys.readouterr().err
    fewer = {name: part[:4] for name, part in plain[2].items()}
    torch.testing.assert_close(compiled(*fast[:2], fewer), descend(*plain[:2], fewer))
    libraries = set(graph_folder().glob("*.so"))
    assert library in libraries and len(libraries) == 2
    code = "from tests.test_compiling import *; print(graph(descend, 'other key', True)(*arguments())[0]['loss'].item())"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(again.stdout) == pytest.approx(descend(*arguments())[0]["loss"].item())
    assert "compiling" not in again.stderr
    assert set(graph_folder().glob("*.so")) == libraries


def test_note_tells_the_library_of_our_own_functions_alone(tmp_path):
    ours, where = targets.huber, ("torch 2", "a processor")
    note = note_of(tmp_path, ours, ("update", 64), where)
    assert note == note_of(tmp_path, ours, ("update", 64), where)
    assert note != note_of(tmp_path, ours, ("update", 32), where)
    assert note != note_of(tmp_path, ours, ("update", 64), ("torch 3", "a processor"))
    assert note_of(tmp_path, descend, "update", where) is None  # of a module that may import anything
    assert note_of(tmp_path, partial(ours, arguments), "update", where) is None
    assert note_of(tmp_path, ours, ("update", object()), where) is None  # says nothing of what it computes


def test_graph_with_a_note_is_loaded_without_tracing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "_GRAPHS", {})
    monkeypatch.setattr(compiling, "make_fx", lambda *_: pytest.fail("traced"))
    monkeypatch.setattr(compiling, "_loaded", lambda path: lambda tensors: [tensors[0] + 7] if path.name == "kept.so" else [])
    note = note_of(tmp_path, targets.huber, "a key", ())
    monkeypatch.setattr(compiling, "note_of", lambda *_: note)
    graph_folder().mkdir(parents=True)
    (graph_folder() / "kept.so").touch()
    note.write_text("kept.so")
    found = graph(targets.huber, "a key", True)(torch.zeros(2))
    assert torch.equal(found, torch.full((2,), 7.0))
