"""What `mpagents list` shows."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from mpagents.agents import AGENTS, agent_class

MEANINGS = {  # of the types in configurations
    r"UnitInterval": "number 0 … 1",
    r"PositiveInt": "integer > 0",
    r"NonNegativeInt": "integer ≥ 0",
    r"Positive": "number > 0",
    r"NonNegative": "number ≥ 0",
    r"Schedule": "{start, end, fraction, kind}",
    r"float": "number",
    r"str": "text",
    r"None": "null",
}


def agents() -> list[dict[str, Any]]:
    """Name, first line of the documentation and settings with their defaults of every registered agent."""
    rows = []
    for name in AGENTS:
        cls: Any = agent_class(name)
        settings = [f"{f.name}: {_type(f)} = {_default(f)}" for f in dataclasses.fields(cls.Config)]
        rows.append({"name": name, "about": (cls.__doc__ or "").strip().splitlines()[0], "settings": settings})
    return rows


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
