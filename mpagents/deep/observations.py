"""Observations as tensors: how a space is stored (compactly, as recorded) and what a network is given.

Stored: a dict of arrays, one for each leaf of the space (the key is "" for a space that isn't nested): uint8 for frames,
int64 for numbers of finite sets, float32 for the rest. Given to a network: (`vector` float32 [B, D] or None, `image` float32
[B, C, H, W] in [0, 1] or None); members of finite sets are one-hot, so a deep agent can stand beside tabular ones. An encoder
that learns with its agent gives codes in the place of the leaf that it sees, which is stored as it is.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Observation = dict[str, Tensor]  # by leaf, batch first


def leaves(space: gym.Space) -> dict[str, gym.Space]:
    """The parts of a nested space by name, e.g. {"camera": Box, "joints.0": Discrete}."""
    return {".".join(map(str, path)): leaf for path, leaf in _paths(space)}


def _paths(space: gym.Space) -> list[tuple[tuple[Any, ...], gym.Space]]:
    """Each part of a nested space, after the keys that lead to it."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces)
        return [((part, *path), leaf) for part, inner in parts for path, leaf in _paths(inner)]
    return [((), space)]


def is_image(space: gym.Space) -> bool:
    """uint8 frames: [H, W], [H, W, C], or as frame stacking gives them, [K, H, W] and [K, H, W, C]."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3, 4):
        return False
    return min(_channels_first(space.shape)[1:]) > 1


def check_observation(space: gym.Space) -> None:
    """Raise ValueError where a leaf of the space can't be given to a network."""
    for name, leaf in leaves(space).items():
        if not isinstance(leaf, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
            where = f" (under {name!r})" if name else ""
            raise ValueError(
                f"observation space is {leaf}{where}; expected Box, Discrete, MultiDiscrete or MultiBinary, maybe nested"
            )


class ObservationCodec:
    """Stores and prepares the observations of one space; through an `encoder` of its own, a copy, where one is given."""

    def __init__(self, space: gym.Space, encoder: Any = None) -> None:
        check_observation(space)
        self.leaves = leaves(space)
        self.encoder = copy.deepcopy(encoder)
        self.encoded: str | None = None if encoder is None else encoder.settings.key or ""  # the leaf that it sees
        plain = {name: leaf for name, leaf in self.leaves.items() if name != self.encoded}
        self.vector_leaves = {name: leaf for name, leaf in plain.items() if not is_image(leaf)}
        self.image_leaves = {name: leaf for name, leaf in plain.items() if is_image(leaf)}
        self._places = [(".".join(map(str, path)), path, _storage_type(leaf)) for path, leaf in _paths(space)]
        self.vector_size = sum(_width(leaf) for leaf in self.vector_leaves.values())
        if encoder is not None:
            encoder.space(space)  # raises where it can't see this one
            self.vector_size += encoder.out_features
        shapes = [_channels_first(leaf.shape) for leaf in self.image_leaves.values() if leaf.shape]
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(f"images have sizes {[shape[1:] for shape in shapes]}; expected one size")
        self.image_shape = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes else None

    def store(self, observation: Any) -> dict[str, np.ndarray]:
        """A batch as a vector environment gives it, copied into its storage type, rows first (compiled graphs rely on it)."""
        found: dict[str, np.ndarray] = {}
        for name, path, storage_type in self._places:
            value = observation
            for part in path:
                value = value[part]
            found[name] = np.array(value, dtype=storage_type, order="C")
        return found

    def empty(self, n: int) -> dict[str, np.ndarray]:
        """Storage for n observations, zeros."""
        return {name: np.zeros((n, *(leaf.shape or ())), _storage_type(leaf)) for name, leaf in self.leaves.items()}

    def tensors(self, observation: Any, device: torch.device | str = "cpu") -> Observation:
        """The same as tensors on a device, in one transfer a leaf."""
        return {name: torch.from_numpy(value).to(device) for name, value in self.store(observation).items()}

    def prepare(self, stored: Observation) -> tuple[Tensor | None, Tensor | None]:
        """(vector [B, D], image [B, C, H, W]) for a network; pure, so that it can be compiled."""
        vectors = [_vector(stored[name], leaf) for name, leaf in self.vector_leaves.items()]
        images = [_image(stored[name], leaf) for name, leaf in self.image_leaves.items()]
        if self.encoded is not None:
            vectors.append(self.encoder(stored[self.encoded])[0])
        vector = torch.cat(vectors, dim=1) if len(vectors) > 1 else (vectors[0] if vectors else None)
        image = torch.cat(images, dim=1) if len(images) > 1 else (images[0] if images else None)
        return vector, image


def _storage_type(space: gym.Space) -> Any:
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return np.int64
    return np.uint8 if is_image(space) or isinstance(space, gym.spaces.MultiBinary) else np.float32


def _width(space: gym.Space) -> int:
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return int(np.prod(space.shape)) if space.shape else 1


def _vector(stored: Tensor, space: gym.Space) -> Tensor:
    if isinstance(space, gym.spaces.Discrete):
        return F.one_hot(stored - int(space.start), int(space.n)).float()
    if isinstance(space, gym.spaces.MultiDiscrete):
        columns = stored.reshape(len(stored), -1) - torch.as_tensor(space.start.ravel(), device=stored.device)
        return torch.cat([F.one_hot(columns[:, i], int(n)).float() for i, n in enumerate(space.nvec.ravel())], dim=1)
    return stored.reshape(len(stored), -1).float()


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether frames are [H, W, C] or [K, H, W, C]: with C at most 4, or less than H."""
    return len(shape) == 4 or (len(shape) == 3 and (shape[2] <= 4 or shape[0] > shape[2]))


def _channels_first(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of frames; the channels of stacked ones are side by side, the oldest first."""
    height, width = shape[-3:-1] if has_channels_last(shape) else shape[-2:]
    return int(np.prod(shape)) // (height * width), height, width


def _image(stored: Tensor, space: gym.Space) -> Tensor:
    """[B, C, H, W] in [0, 1]."""
    shape = space.shape or ()
    image = stored.movedim(-1, -3) if has_channels_last(shape) else stored
    return image.reshape(len(stored), *_channels_first(shape)).float() / 255
