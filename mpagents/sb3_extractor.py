"""An encoder as Stable-Baselines3's `features_extractor_class`, frozen or learning with the policy.

    PPO("CnnPolicy", env, policy_kwargs=dict(
        features_extractor_class=EncoderExtractor, features_extractor_kwargs=dict(encoder="vae.safetensors", mode="finetune"),
    ))

Two things that Stable-Baselines3 does to an extractor are undone: it divides frames by 255, where an encoder takes them as
recorded; and its on-policy algorithms draw every layer's weights anew (orthogonally), which a trained encoder wouldn't survive.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from mpagents.encoders import Encoder, as_encoder


class EncoderExtractor(BaseFeaturesExtractor):
    """`encoder`: an `Encoder` (a copy of which is used) or its file; of a Dict the other entries follow its code, flat.

    `mode`: another than the encoder's own, frozen or finetune. `normalize_images`: as the policy's keyword, if that is set.
    Raises ValueError where the encoder can't see these observations, and for recurrent ones (use `EncodeObservation`).
    """

    def __init__(
        self, observation_space: gym.Space, encoder: Any, mode: str | None = None, normalize_images: bool = True
    ) -> None:
        found = copy.deepcopy(as_encoder(encoder))
        if mode is not None and mode != found.mode:
            settings = vars(found.settings) | {"mode": mode}
            moments = found.mean, found.std
            found = Encoder(found.model, **settings)
            found.mean.copy_(moments[0]), found.std.copy_(moments[1])
        if found.recurrent:
            raise ValueError(
                "a recurrent encoder keeps states, which no extractor can: wrap the environment, EncodeObservation"
            )
        if found.mode == "joint":
            raise ValueError(
                "mode is 'joint'; Stable-Baselines3 has no place for a second loss: expected 'frozen' or 'finetune'"
            )
        found.space(observation_space)
        self.key = found.settings.key
        spaces = observation_space.spaces if isinstance(observation_space, gym.spaces.Dict) else {}
        others = {name: part for name, part in spaces.items() if name != self.key}
        super().__init__(observation_space, found.out_features + sum(get_flattened_obs_dim(part) for part in others.values()))
        self.encoder, self.others = found, list(others)
        seen = observation_space if self.key is None else spaces[self.key]
        self.divided = normalize_images and is_image_space(seen)
        self.frames = seen.dtype is not None and seen.dtype.kind == "u"

    def forward(self, observations: Any) -> Tensor:
        leaf = observations if self.key is None else observations[self.key]
        if self.frames:
            leaf = (leaf * 255 if self.divided else leaf).round().to(torch.uint8)
        codes = self.encoder({self.key: leaf} if self.key else leaf)[0]
        return torch.cat([codes, *(observations[name].flatten(1).float() for name in self.others)], dim=1)

    def apply(self, fn: Callable[[nn.Module], None]) -> EncoderExtractor:
        """Weights are drawn anew by this: the encoder keeps its own."""
        return self
