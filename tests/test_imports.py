"""The house's import rules, and that `import mpagents` is light."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SOURCES = {
    path: path.relative_to(ROOT).as_posix() for top in ("mpagents", "envs", "generative") for path in (ROOT / top).rglob("*.py")
}
STANDARD = sys.stdlib_module_names
OF_RAY = {"mpagents/cluster.py", "mpagents/ray_session.py", "mpagents/tune.py", "mpagents/tune_adapters.py"}


def imports(path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=SOURCES.values())
def test_import_rules(path):
    name, modules = SOURCES[path], imports(path)
    tops = {module.partition(".")[0] for module in modules}
    if name.startswith("generative/"):
        assert tops <= STANDARD | {"torch", "numpy", "safetensors", "sklearn", "generative"}
    if name.startswith("envs/"):
        ours = {module for module in modules if module.startswith("mpagents")}
        allowed = "mpagents.torch_env", "mpagents.tabular", "mpagents.dream", "mpagents.scenes"
        assert all(module.startswith(allowed) for module in ours)
    if name.startswith("mpagents/"):
        assert "envs" not in tops or name == "mpagents/listing.py"
        assert "ray" not in tops or name in OF_RAY


def test_no_circles_within_the_package():
    """Imports at the top of files form no circle: each could be loaded first."""
    graph = {}
    for path, name in SOURCES.items():
        module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        body = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[module] = {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}
    state = {}

    def visit(module, trail):
        assert state.get(module) != "open", " → ".join([*trail, module])
        if module in graph and module not in state:
            state[module] = "open"
            for needed in graph[module]:
                visit(needed, [*trail, module])
            state[module] = "done"

    for module in graph:
        visit(module, [])


def test_import_mpagents_is_light():
    code = (
        "import sys, time; start = time.perf_counter(); import mpagents; seconds = time.perf_counter() - start\n"
        "heavy = {'numpy', 'torch', 'ray', 'pydantic', 'gymnasium', 'numba', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert seconds < 0.3, seconds"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cli_help_is_quick_and_names_every_command():
    done = subprocess.run([sys.executable, "-m", "mpagents", "--help"], capture_output=True, text=True, check=True)
    for command in ("run", "train", "evaluate", "report", "list", "doctor"):
        assert command in done.stdout
