"""What `mpagents list` shows."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from mpagents.agents import AGENTS, agent_class

MEANINGS = {  # of the types in configurations
    r"UnitInterval": "number 0 … 1",
    r"PositiveInt": "integer > 0",
    r"NonNegativeInt": "integer ≥ 0",
    r"Positive": "number > 0",
    r"NonNegative": "number ≥ 0",
    r"Schedule": "{start, end, fraction, kind}",
    r"Compile": "auto | true | false",
    r"float": "number",
    r"str": "text",
    r"None": "null",
}


def agents() -> list[dict[str, Any]]:
    """Name, first line of the documentation and settings of every registered agent: `double: bool = true  # what it means`."""
    rows = []
    for name in AGENTS:
        cls: Any = agent_class(name)
        said = _comments(cls.Config)
        settings = [f"{f.name}: {_type(f)} = {_default(f)}{said.get(f.name, '')}" for f in dataclasses.fields(cls.Config)]
        rows.append({"name": name, "about": (cls.__doc__ or "").strip().splitlines()[0], "settings": settings})
    return rows


def _comments(config: type) -> dict[str, str]:
    """What stands beside each field in its file, `  # …`."""
    lines = [line for cls in reversed(config.__mro__[:-1]) for line in inspect.getsourcelines(cls)[0]]
    found = (re.match(r"\s+(\w+): .*?(  # .+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def models() -> list[dict[str, Any]]:
    """Name, first line of the documentation and settings of every registered model, read from its file: nothing is imported."""
    from generative import MODELS

    return [{"name": name, **_model(*path.split(":"))} for name, path in MODELS.items()]


def _model(module: str, class_name: str) -> dict[str, Any]:
    parsed = _parsed(module)
    if parsed is None:
        return {"about": f"not here: {module} has no file"}
    about = (ast.get_docstring(parsed[0]) or "").split("\n")[0]
    model = _classes(parsed[0]).get(class_name)
    assigned = [node for node in model.body if isinstance(node, ast.Assign)] if model else []
    configs = [
        node.value.id for node in assigned if ast.unparse(node.targets[0]) == "Config" and isinstance(node.value, ast.Name)
    ]
    return {"about": about, "settings": [setting for name in configs for setting in _settings(module, name)]}


def _settings(module: str, class_name: str) -> list[str]:
    """The fields as the file has them, inherited ones first: `latent: int = 8  # dimensions of z`."""
    parsed = _parsed(module)
    if parsed is None:
        return []
    tree, lines = parsed
    node = _classes(tree).get(class_name)
    if node is None:  # imported from elsewhere in the package
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        homes = [node.module for node in imports if class_name in [alias.name for alias in node.names]]
        return [setting for home in homes if home for setting in _settings(home, class_name)]
    inherited = [setting for base in node.bases for setting in _settings(module, ast.unparse(base))]
    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
    return inherited + [" ".join(line.strip() for line in lines[field.lineno - 1 : field.end_lineno]) for field in fields]


def _parsed(module: str) -> tuple[ast.Module, list[str]] | None:
    """(syntax tree, lines) of a file of `generative`; None where there is none."""
    import generative

    path = Path(generative.__path__[0]).joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not module.startswith("generative.") or not path.is_file():
        return None
    text = path.read_text()
    return ast.parse(text), text.splitlines()


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def environments() -> list[dict[str, Any]]:
    """This project's environments, then Gymnasium's finite and classic-control ones (any other id works too)."""
    import gymnasium

    import envs  # registers ours

    rows = [{"name": f"envs:{env_id}", "about": _about(gymnasium.spec(env_id))} for env_id in envs.ENTRY_POINTS]
    for env_id, spec in gymnasium.registry.items():
        point = spec.entry_point if isinstance(spec.entry_point, str) else ""
        if "toy_text" in point or "classic_control" in point:
            rows.append({"name": env_id, "about": _about(spec)})
    return rows


def _about(spec: Any) -> str:
    limit = f"at most {spec.max_episode_steps} steps" if spec.max_episode_steps else "no step limit"
    return f"{limit}, {spec.entry_point}"


def _type(field: dataclasses.Field) -> str:
    text = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    for name, meaning in MEANINGS.items():
        text = re.sub(rf"\b{name}\b", meaning, text)
    return re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "").replace(", ", " | "), text)


def _default(field: dataclasses.Field) -> str:
    """As a study file would say it."""
    if field.default is dataclasses.MISSING:
        return "required" if field.default_factory is dataclasses.MISSING else json.dumps(field.default_factory())
    value = dataclasses.asdict(field.default) if dataclasses.is_dataclass(field.default) else field.default  # type: ignore[arg-type]
    return value if isinstance(value, str) else json.dumps(value)
