"""`compile: auto | true | false`: whole steps of learning and acting as compiled graphs, where that repays its seconds.

A graph is traced (a second at most) and compiled ahead of time by AOTInductor into a library, which is kept in
`$XDG_CACHE_HOME/mpagents/graphs` under a hash of the traced operations, torch's version and the processor: the first process on
a machine pays 10–20 s, and no change of the code can meet an old library. Later processes load it in milliseconds by the note
that `graph_index` keeps, or trace again where there can be none. A library is first loaded by a process of its own: where that
dies (seen with one machine's torch 2.11 for CUDA 13), training goes on eagerly.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from mpagents.deep.graph_index import note_of

Compile = Literal["auto", "true", "false"] | bool

LOAD = "import sys, torch; from torch._C._aoti import AOTIModelContainerRunnerCpu as Runner; Runner(sys.argv[1], 1)"
WORTH_IT = 5_000  # updates; below, compiling costs more than it saves where nothing is cached yet


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def resolve(wanted: Compile, updates: int) -> bool:
    """Whether to compile a function that will be called about `updates` times."""
    if wanted in ("auto", "true", True) and not has_compiler():
        if wanted != "auto" or updates >= WORTH_IT:
            print("no C++ compiler found: running eagerly (install g++ to compile)", file=sys.stderr)
        return False
    return updates >= WORTH_IT if wanted == "auto" else wanted in ("true", True)


class Graph:
    """A function of tensors, nested in dicts, lists and tuples, and of nothing else, as one compiled graph without guards.

    It is traced with the arguments of its first call, and again where shapes change; types and devices must stay, and whatever
    the function reads beside its arguments is taken as it was then. Arguments may be changed in place. Functions of an equal
    `key` (all that distinguishes what they compute) share a graph within a process: the second seed of a study traces nothing.
    """

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        self._function, self._key = function, key
        self._run: Callable[[list[Tensor]], list[Tensor]] | None = None
        self._shapes: list[torch.Size] = []
        self._result: Any = None  # the structure of what it returns

    def __call__(self, *arguments: Any) -> Any:
        tensors: list[Tensor] = []
        _append_leaves(arguments, tensors)
        shapes = [t.shape for t in tensors]
        if self._run is None or shapes != self._shapes:
            self._run, self._result = _compiled(self._function, self._key, arguments)
            self._shapes = shapes
        return pytree.tree_unflatten(self._run(tensors), self._result)


_GRAPHS: dict[Hashable, tuple[Callable[[list[Tensor]], list[Tensor]], Any]] = {}  # of this process


def graph(function: Callable[..., Any], key: Hashable, use: bool) -> Callable[..., Any]:
    """`function` of tensors as a `Graph` if `use`; the same function either way."""
    return Graph(function, key) if use else function


def _append_leaves(value: Any, found: list[Tensor]) -> None:
    """As torch's pytree orders them, at a quarter of its price."""
    if isinstance(value, Tensor):
        found.append(value)
    else:
        for part in value.values() if isinstance(value, dict) else value:
            _append_leaves(part, found)


def _compiled(
    function: Callable[..., Any], key: Hashable, arguments: tuple
) -> tuple[Callable[[list[Tensor]], list[Tensor]], Any]:
    tensors, structure = pytree.tree_flatten(arguments)
    described = [(tuple(t.shape), t.stride(), str(t.dtype), str(t.device)) for t in tensors]
    key = (key, str(described))
    if key not in _GRAPHS:
        results: list[Any] = []

        def flat(*flat_arguments: Tensor) -> list[Tensor]:
            leaves, result = pytree.tree_flatten(function(*pytree.tree_unflatten(list(flat_arguments), structure)))
            results.append(result)
            return leaves

        with torch.no_grad():
            examples = [t.detach().clone() for t in tensors]
            note = note_of(graph_folder(), function, key, _circumstances())
            path = graph_folder() / note.read_text() if note is not None and note.exists() else None
            if path is not None and path.exists():
                flat(*examples)  # tells the structure of the result
                run = _loaded(path)
            else:
                traced = make_fx(flat)(*examples)
                for node in traced.graph.nodes:
                    node.meta.clear()  # each tensor was traced under a mode of its own, which inductor refuses
                run = _library_or_eager(traced, examples, str(described), note)
            _GRAPHS[key] = run, results[-1]
    return _GRAPHS[key]


def _library_or_eager(
    traced: GraphModule, examples: list[Tensor], described: str, note: Path | None
) -> Callable[[list[Tensor]], list[Tensor]]:
    """Where this torch's compiler can't take a graph, the traced operations as they are, and a line that says so."""
    try:
        return _library(traced, examples, described, note)
    except RuntimeError as error:  # all of inductor's and the C++ compiler's
        print(f"torch {torch.__version__} can't compile a graph ({type(error).__name__}): running eagerly", file=sys.stderr)
        return lambda tensors: traced(*tensors)


def _library(
    traced: GraphModule, examples: list[Tensor], described: str, note: Path | None
) -> Callable[[list[Tensor]], list[Tensor]]:
    """The traced operations as compiled code, from the cache or put there, with its note."""
    if any(t.device.type != "cpu" for t in examples):
        run = torch._inductor.compile(traced, list(examples))
        return lambda tensors: run(*tensors)
    path = graph_folder() / f"{_digest(traced, described)}.so"
    killer = path.with_suffix(".killer")  # stands where a process of its own died of loading it
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists() and not killer.exists():
                _build(traced, examples, path, killer)
    if killer.exists():
        raise RuntimeError("a process that loaded the library died")
    if note is not None:
        temporary = note.with_suffix(f".{os.getpid()}")
        temporary.write_text(path.name)
        temporary.replace(note)
    return _loaded(path)


def _loaded(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    from torch._C._aoti import AOTIModelContainerRunnerCpu

    return AOTIModelContainerRunnerCpu(str(path), 1).run


def _build(traced: GraphModule, examples: list[Tensor], path: Path, killer: Path) -> None:
    print("compiling a graph (10–20 s, once on this machine)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"aot_inductor.output_path": f"{folder}/graph.so"}
        library = Path(str(torch._inductor.aot_compile(traced, tuple(examples), options=options)))
        if subprocess.run([sys.executable, "-c", LOAD, library], capture_output=True).returncode == 0:
            library.replace(path)
        else:
            killer.touch()


def graph_folder() -> Path:
    """Where libraries are kept; they may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mpagents" / "graphs"


def _digest(traced: GraphModule, described: str) -> str:
    """A hash of all that a library depends on."""
    digest = hashlib.sha256()
    for part in (*_circumstances(), described, traced.code):
        digest.update(part.encode() + b"\0")
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            digest.update(getattr(traced, str(node.target)).numpy().tobytes())
    return digest.hexdigest()[:32]


def _circumstances() -> tuple[str, ...]:
    """What a library depends on beside the graph itself."""
    return torch.__version__, str(torch.get_num_threads()), _processor()


@lru_cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
