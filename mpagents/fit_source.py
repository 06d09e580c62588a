"""What `mpagents fit` trains on, from the command line's words, and what the data say of a model's configuration.

A source is `env:ID` (a running environment under random actions), a folder (a recording's, or one of images), or a name that
`generative.source` knows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

import generative
from generative.sources import SOURCES
from mpagents.configuration import InvalidInput, Problem, nearest

PROBED = 1_000  # data that are looked at


@dataclasses.dataclass(frozen=True)
class LiveSettings:
    """The settings of `env:ID`."""

    size: tuple[int, int] | None = None  # height and width of frames, pixels; asks for frames
    grey: bool = False
    length: int | None = None  # T of sequences; None: single observations
    stack: int = 1  # observations in the channels, the oldest first
    stride: int = 1  # steps between stacked ones
    crossing: bool = False  # sequences run on into the next episode
    actions: str = "taken"  # action beside x_t: the one taken upon it, or the one that "led" to it
    num_envs: int = 16  # copies
    memory: int = 4_096  # observations drawn from, the last ones
    reuse: float = 4.0  # times that an observation is drawn, on average
    env: dict = dataclasses.field(default_factory=dict)  # of the environment: kwargs, max_episode_steps, wrappers


def open_source(name: str, settings: Mapping[str, Any], seed: int = 0) -> Any:
    """The source. Raises ValueError for unknown names and settings."""
    if name.startswith("env:"):
        return _live(name, settings, seed)
    if (Path(name) / "manifest.json").is_file():
        return generative.source("recording", folder=name, **settings)
    if Path(name).is_dir() and name not in SOURCES:
        from mpagents.image_folder import ImageSettings, image_folder

        return image_folder(Path(name), generative.configured(ImageSettings, settings, f"source {name!r}"))
    if name in SOURCES or ":" in name:
        return generative.source(name, **settings)
    expected = f"expected a folder (a recording's, or of images), env:ID, or one of {', '.join(sorted(SOURCES))}"
    hint = nearest(name, SOURCES).partition(" (known")[0]
    raise InvalidInput([Problem((), f"unknown source {name!r}{hint}; {expected}")])


def _live(name: str, settings: Mapping[str, Any], seed: int) -> Any:
    from generative.windows import Reading
    from mpagents.collecting import View
    from mpagents.configuration import validate
    from mpagents.environment_source import EnvironmentSource
    from mpagents.environments import EnvironmentSpec

    found = generative.configured(LiveSettings, settings, f"source {name!r}")
    spec = validate(EnvironmentSpec, {"id": name.removeprefix("env:"), "native": False, **found.env}, ("env",))
    reading = Reading(found.length, found.stack, found.stride, found.crossing, found.actions)
    return EnvironmentSource(
        spec, view=View(found.size, found.grey), reading=reading, num_envs=found.num_envs, memory=found.memory,
        reuse=found.reuse, seed=seed,
    )  # fmt: skip


def content_of(source: Any) -> str | None:
    """A hash of what a folder holds: results depend on it as on the settings."""
    from generative.data import Rows
    from generative.recordings import Recording, fingerprint

    if isinstance(source, Rows):
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(column).tobytes() for column in source.columns.values())
        ).hexdigest()
    return fingerprint(source.manifest) if isinstance(source, Recording) else None


def told_by_data(config_class: type, given: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Values of the configuration's fields that the data tell, for those that aren't given: shapes, levels, classes."""
    batch = source.sample(PROBED, torch.Generator().manual_seed(0))
    told = shapes(batch["x"], getattr(source, "levels", None)) | labels(source, batch, given) | words(source, batch)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if "height" not in fields:
        told.pop("channels", None)  # of convolutions
    if "shape" in fields:
        told.pop("num_steps", None)  # of a diffusion or a flow
        wanted = get_args(get_type_hints(config_class)["shape"])
        if wanted == (int, int, int) and "shape" not in given and len(told["shape"]) != 3:
            raise ValueError(
                f"the data are {list(told['shape'])} each; expected frames [H, W, C]: take a model of vectors, or make frames "
                "of an environment that renders by `mpagents record --size 32x32`"
            )
    optional = [name for name in ("num_classes", "num_labels") if name in fields and not _required(fields[name])]
    return {key: value for key, value in told.items() if key in fields and key not in given and key not in optional}


def shapes(x: torch.Tensor, levels: int | None) -> dict[str, Any]:
    """By the names that configurations have for them; the shape is a step's where x are sequences.

    >>> shapes(torch.zeros(5, 64), None)
    {'shape': (64,), 'dimensions': 64, 'in_features': 64, 'size': 1, 'num_steps': 64, 'vectors': True}
    """
    shape = tuple(x.shape[2:] if x.ndim in (3, 5) else x.shape[1:])
    told: dict[str, Any] = {"shape": shape, "dimensions": math.prod(shape)}
    if x.ndim == 2:  # numbers, or a sequence of them
        told |= {"in_features": shape[0], "size": 1, "num_steps": shape[0], "vectors": True}
    if x.ndim == 3:
        told |= {"in_features": shape[0], "size": shape[0], "num_steps": x.shape[1], "vectors": False}
    if x.ndim == 4:
        told |= {"height": shape[0], "width": shape[1], "channels": shape[2]}
    if x.dtype == torch.uint8:
        told["levels"] = levels or (2 if int(x.max()) <= 1 else 256)
    return told


def words(source: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Of captions: how long they are, and what their numbers mean."""
    known = getattr(source, "manifest", {}).get("vocabulary")
    return {"max_words": batch["text"].shape[1], "vocabulary": tuple(known)} if known and "text" in batch else {}


def labels(source: Any, batch: Mapping[str, torch.Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Classes of the labels, dimensions of targets, actions and conditions."""
    told: dict[str, Any] = {"action_size": batch["action"].shape[-1]} if "action" in batch else {}
    if "label" in batch and not batch["label"].is_floating_point():
        known = getattr(source, "manifest", {}).get("classes") or range(int(batch["label"].max()) + 1)
        told |= {"num_classes": len(known), "out_features": len(known)}
    target = batch.get("target")
    if target is not None and target.is_floating_point():
        told["out_features"] = target[0].numel()
    condition = given.get("condition")
    if condition is not None and condition in batch:
        told["condition_size"] = told["num_classes"] if condition == "label" else batch[condition].shape[-1]
    return told


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
