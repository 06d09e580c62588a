"""A rollout of a `TorchVectorEnv` as part of a graph: policy and environment without leaving torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.policies import Categorical, Gaussian
from mpagents.deep.rollout import Batch
from mpagents.torch_env import TorchEnv, Walk, advance


def rollout(
    flat: FlatParameters, parameters: Tensor, head: Categorical | Gaussian, env: TorchEnv, walk: Walk, noise: Tensor,
    env_noise: Tensor,
) -> tuple[Batch, Walk]:  # fmt: skip
    """(batch [T, n, …], where the environments stand after it).

    `noise` [T, n, A] draws actions, `env_noise` [T, 2, n, …] steps and resets. Every row is valid: autoreset is SAME_STEP.
    """
    rows: list[dict[str, Any]] = []
    act = flat.module.act
    with torch.no_grad():
        for t in range(len(noise)):
            observed, first = env.observe(walk.state), walk.elapsed == 0
            output, _ = flat.call(act, parameters, {"": observed}, first, ())  # type: ignore[arg-type]
            action = head.sample(output, noise[t])
            walk, outcome = advance(env, walk, head.for_torch(action), env_noise[t])
            rows.append({"observed": observed, "first": first, "action": action, **outcome._asdict()})
    batch: Batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    leaves = {"obs": {"": batch.pop("observed")}, "next_obs": {"": batch.pop("next_obs")}}
    return batch | leaves | {"valid": torch.ones_like(batch["first"])}, walk


def iteration(
    agent: Any, env: TorchEnv, parameters: Tensor, moments: dict, learning_rate: Tensor, walk: Walk, *noise: Tensor
) -> tuple[dict[str, Tensor], Walk, Tensor, Tensor]:
    """A rollout and an agent's update from it: (metrics, where the environments stand, reward and ends [T, n])."""
    batch, walk = rollout(agent.flat, parameters, agent.head, env, walk, *noise)
    metrics = agent.update(parameters, moments, learning_rate, batch, ())
    return metrics, walk, batch["reward"], batch["terminated"] | batch["truncated"]
