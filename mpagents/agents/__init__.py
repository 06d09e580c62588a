"""The registry of agents. A user's own agent needs no registration: name it "package.module:Class"."""

from __future__ import annotations

import importlib

AGENTS = {
    "random": "mpagents.agents.random:Random",
    "value_iteration": "mpagents.agents.value_iteration:ValueIteration",
    "policy_iteration": "mpagents.agents.policy_iteration:PolicyIteration",
    "modified_policy_iteration": "mpagents.agents.modified_policy_iteration:ModifiedPolicyIteration",
    "monte_carlo": "mpagents.agents.monte_carlo:MonteCarlo",
    "td": "mpagents.agents.td:TD",
    "sarsa": "mpagents.agents.sarsa:Sarsa",
    "q_learning": "mpagents.agents.q_learning:QLearning",
    "model_based": "mpagents.agents.model_based:ModelBased",
}


def agent_class(name: str) -> type:
    """The class of a registered name or of "package.module:Class". Raises ValueError naming the nearest known name."""
    path = AGENTS.get(name, name)
    if ":" not in path:
        from mpagents.configuration import nearest

        raise ValueError(f"unknown agent {name!r}{nearest(name, AGENTS)}")
    module_name, _, class_name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # the module exists, and something that it imports doesn't
        raise ValueError(f"agent {name!r}: no module {module_name!r} on the path of this folder") from error
    except AttributeError as error:
        raise ValueError(f"agent {name!r}: module {module_name!r} has no class {class_name!r}") from error
