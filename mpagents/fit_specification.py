"""What one training of a generative model is: its specification, with every default filled in, tried on one minibatch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpagents.configuration import InvalidInput, Problem
from mpagents.specification import check_slug, slug

PICTURE_TIMES = 10  # in a training, unless said otherwise


@dataclass(frozen=True)
class FitSpec:
    """All that a training's results depend on, resolved: no default is left out."""

    label: str
    model: str  # a registered name, or "module:Class"
    config: dict[str, Any]  # of the model
    source: str
    source_config: dict[str, Any]
    content: str | None  # a hash of the source's content, of recordings
    settings: dict[str, Any]  # of `generative.fit`, without the seed
    seed: int

    @property
    def path(self) -> str:
        return f"{self.label}/seed={self.seed}"

    @property
    def steps(self) -> int:
        return self.settings["steps"]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over what results depend on: not the label, nor where the source lies if its content is known."""
        ignored = ("label", "source") if self.content else ("label",)
        values = {key: value for key, value in dataclasses.asdict(self).items() if key not in ignored}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, **dataclasses.asdict(self), "hash": self.hash}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FitSpec:
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def specify(
    model: str, source: str, *, config: Mapping[str, Any], source_config: Mapping[str, Any], settings: Mapping[str, Any],
    seed: int = 0, label: str | None = None,
) -> FitSpec:  # fmt: skip
    """The specification, its defaults filled in from the models, `FitConfig` and the data; tried on one minibatch.

    Raises ValueError for unknown names, keys and types, and where the model refuses the data.
    """
    import generative
    from generative.fit_settings import FitConfig
    from mpagents.fit_source import content_of, open_source, told_by_data

    if "seed" in settings:
        raise InvalidInput([Problem(("fit", "seed"), "seeds are counted by --seeds")])
    found: Any = generative.model_class(model)
    fit_config = generative.configured(FitConfig, settings, "fit")
    every = settings.get("pictures_every", max(1, fit_config.steps // PICTURE_TIMES))
    opened = open_source(source, source_config)
    values = {**told_by_data(found.Config, config, opened), **config}
    resolved = generative.configured(found.Config, values, model)
    label = label or f"{slug(model)}-{slug(Path(source).name)}"
    problems = check_slug(label, ("label",))
    if problems:
        raise InvalidInput(problems)
    if hasattr(found, "imagine") and getattr(getattr(opened, "reading", None), "actions", "led") != "led":
        fix = "set --source actions=led (source_config: actions: led)"
        message = f"{model} learns what an action leads to, and the source puts actions beside what they follow; {fix}"
        raise InvalidInput([Problem(("source", "actions"), message)])
    try_model(found(resolved), opened, fit_config.batch_size)
    content = content_of(opened)
    if (Path(source) / "manifest.json").is_file():
        source = str(Path(source).resolve())  # for workers elsewhere
    plain = {**dataclasses.asdict(fit_config), "pictures_every": every}
    del plain["seed"]
    spec = FitSpec(label, model, dataclasses.asdict(resolved), source, dict(source_config), content, plain, seed)
    return FitSpec.from_json(json.loads(json.dumps(spec.to_json())))  # as it will be read


def try_model(model: Any, source: Any, batch_size: int) -> None:
    """One loss of each player, so that what the model refuses is told before anything starts."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for player, _ in model.schedule:
        model.loss(source.sample(batch_size, generator), player, generator=generator)
