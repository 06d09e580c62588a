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
    "dqn": "mpagents.agents.dqn:DQN",
    "reinforce": "mpagents.agents.reinforce:Reinforce",
    "actor_critic": "mpagents.agents.actor_critic:ActorCritic",
    "imagination": "mpagents.agents.imagination:Imagination",
    "sb3": "mpagents.agents.sb3:StableBaselines3",
}


def agent_class(name: str) -> type:
    """The class of a registered name or of "package.module:Class". Raises ValueError naming the nearest known name."""
    path = AGENTS.get(name, name)
    if ":" not in path:
        from mpagents.configuration import nearest

        raise ValueError(f"unknown agent {name!r}{nearest(name, AGENTS)}")
    module_name, _, class_name = path.partition(":")
    if not module_name or module_name.startswith(".") or not class_name:
        raise ValueError(f"agent {name!r} should be a registered name or 'module:Class'")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # the module exists, and something that it imports doesn't
        raise ValueError(f"agent {name!r}: no module {module_name!r} on the path of this folder") from error
    except AttributeError as error:
        raise ValueError(f"agent {name!r}: module {module_name!r} has no class {class_name!r}") from error
    missing = [part for part in ("Config", "check", "train", "predict", "state_dict") if not hasattr(found, part)]
    if missing:
        raise ValueError(f"agent {name!r} is no agent: it has no {', '.join(missing)} (see mpagents.agents.agent.Agent)")
    return found


def check_mode(found: type, name: str, mode: str) -> None:
    """Raise ValueError where an agent can't learn an encoder in this mode; frozen ones stand before any agent."""
    modes = getattr(found, "encoder_modes", ())
    if mode != "frozen" and mode not in modes:
        able = f"expected frozen{''.join(f' or {other}' for other in modes)}"
        raise ValueError(f"{name} can't learn an encoder in mode {mode!r}; {able}")


def resolved_device(device: str) -> str:
    """For auto: cuda where torch finds a GPU, else cpu. Raises ValueError for cuda where it finds none."""
    if device == "cpu":
        return device
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, and torch finds no GPU here; use auto or cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"
