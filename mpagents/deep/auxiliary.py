"""An encoder that learns with its agent by its own loss too: that of the generative model on what the agent observes.

    minimise  L_agent + c · L_model(observations) / D         c: `coefficient`, D: numbers in an observation, L_model in nats

(UNREAL, Jaderberg et al. 2017, arXiv:1611.05397; Yarats et al. 2021, arXiv:1910.01741.) What encodes gets the gradient of both,
of the model's loss alone (`reconstruction`: the agent's stops at the codes), or of the agent's alone (`agent`: the model's loss
then trains only what decodes).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.observations import Observation, ObservationCodec
from mpagents.seeding import derive


class Auxiliary:
    """c · L_model / D of the encoder in a network whose parameters are `flat`; not `active` without one in mode joint."""

    def __init__(self, flat: FlatParameters, codec: ObservationCodec, seed: int) -> None:
        self.flat, self.encoder, self.leaf = flat, codec.encoder, codec.encoded or ""
        self.shape = (codec.leaves[self.leaf].shape or ()) if self.encoder is not None else ()
        self.active = self.encoder is not None and self.encoder.mode == "joint"
        self.generator = torch.Generator(flat.vector.device).manual_seed(derive(seed, "encoder"))
        self.sum, self.count = torch.zeros((), device=flat.vector.device), 0  # of L_model since it was last logged
        self.held = encoding_parameters(flat, self.encoder) if self.active and self._only_agent else None

    @property
    def _only_agent(self) -> bool:
        return self.encoder.settings.gradient == "agent"

    def __call__(self, parameters: Tensor, observation: Observation) -> Tensor:
        """To be added to the agent's loss where `active`, of observations [B, …] or [T, n, …]; draws noise of its own."""
        leaf = observation[self.leaf]
        x = self.encoder.recorded(leaf.reshape(-1, *self.shape))
        if self.held is not None:
            parameters = torch.where(self.held, parameters.detach(), parameters)
        loss = self.flat.call(self._loss, parameters, x)
        self.sum += loss.detach()
        self.count += 1
        return self.encoder.settings.coefficient / math.prod(self.encoder.shape) * loss

    def _loss(self, x: Tensor) -> Tensor:
        return self.encoder.loss({"x": x}, generator=self.generator)[0]

    def metrics(self) -> dict[str, Tensor]:
        """The model's loss in nats, a mean since it was last asked for."""
        if not self.count:
            return {}
        mean = self.sum / self.count
        self.sum, self.count = torch.zeros_like(self.sum), 0
        return {"model/loss": mean}

    def state_dict(self) -> dict[str, Any]:
        if not self.active:
            return {}
        return {"generator": self.generator.get_state(), "sum": self.sum, "count": self.count}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        if not state:  # nothing there, also of agents trained before there were encoders
            return
        self.generator.set_state(state["generator"])
        self.sum, self.count = state["sum"].to(self.sum.device), state["count"]


def encoding_parameters(flat: FlatParameters, encoder: Any) -> Tensor:
    """bool [P]: true for the parameters that codes depend on."""
    paths = [name.rpartition(".") for name in encoder.reached]
    reached = {(encoder.model.get_submodule(path), name) for path, _, name in paths}
    parts = [torch.full((size,), place in reached) for place, size in zip(flat.places, flat.sizes)]
    return torch.cat(parts).to(flat.vector.device)
