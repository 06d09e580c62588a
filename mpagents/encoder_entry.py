"""An entry of `encoders:` in a study file, read and checked; and resolved for an environment, where the data tell the rest.

    - null                                                                    raw observations
    - {checkpoint: runs/fit/vae-Catch/seed=0/best.safetensors, mode: finetune}
    - {model: vae, label: small, latent: 8, fit: {steps: 3_000}, data: {steps: 10_000, policy: random}}

Keys that are no setting of the encoder, `fit` or `data` are the model's.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mpagents.agents.agent import Spaces
from mpagents.configuration import (
    STRICT,
    InvalidInput,
    NonNegative,
    PositiveInt,
    Problem,
    UnitInterval,
    nearest,
    validate,
)
from mpagents.encoder_specification import EncoderSpec
from mpagents.environments import EnvironmentSpec
from mpagents.results.checkpoint import checkpoint_hash
from mpagents.specification import check_slug, slug

Place = tuple[str | int, ...]
OF_DIFFUSIONS = ("feature_level", "feature_depth")  # what a checkpoint's configuration may be changed in
BLANK_ROWS = 64  # made-up data that a model is tried on


@dataclass(frozen=True)
class DataSettings:
    """What an encoder is fitted to and measured on: the environment under a policy."""

    __pydantic_config__: ClassVar = STRICT

    steps: PositiveInt = 10_000  # observations, over all copies
    num_envs: PositiveInt = 8  # copies stepped together
    policy: str = "random"  # or a trial's folder, or module:function of (observation, rng) -> action
    epsilon: UnitInterval = 0.0  # share of random actions among the policy's
    length: PositiveInt | None = None  # T of sequences, which make sequence models recurrent encoders
    target: str | None = None  # what a supervised model (mlp, cnn) predicts: state


@dataclass(frozen=True)
class Entry:
    """An entry as written, but for the model's own keys."""

    __pydantic_config__: ClassVar = STRICT

    model: str | None = None
    checkpoint: str | None = None
    label: str | None = None
    mode: Literal["frozen", "finetune", "joint"] | None = None
    key: str | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    grey: bool | None = None
    coarsest: bool | None = None
    coefficient: NonNegative | None = None
    gradient: Literal["both", "reconstruction", "agent"] | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    data: DataSettings = field(default_factory=DataSettings)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the encoder that are given, and the mode."""
        names = ("mode", "key", "size", "grey", "coarsest", "coefficient", "gradient")
        return {"mode": "frozen"} | {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class EncoderEntry:
    """An entry, understood as far as it can be without an environment."""

    label: str
    written: Entry
    config: dict[str, Any]  # the model's keys
    fit: dict[str, Any]  # of the fit, every one
    place: Place


def read_encoder(entry: Any, place: Place) -> EncoderEntry | None:
    """None for raw observations. Raises InvalidInput with every problem of the entry."""
    if entry is None:
        return None
    values = {"model": entry} if isinstance(entry, str) else dict(entry)
    known = [item.name for item in dataclasses.fields(Entry)]
    written = validate(Entry, {key: value for key, value in values.items() if key in known}, place)
    if (written.model is None) == (written.checkpoint is None):
        raise InvalidInput([Problem(place, "expected either model (to be fitted) or checkpoint (a file), e.g. {model: vae}")])
    config, of_model = {key: value for key, value in values.items() if key not in known}, _model_keys(written, place)
    unknown = [key for key in config if key not in of_model]
    problems = [Problem((*place, key), f"unknown key{nearest(key, [*known, *of_model])}") for key in unknown]
    mode = "" if written.mode in (None, "frozen") else f"-{written.mode}"
    label = written.label or slug(written.model or Path(str(written.checkpoint)).stem) + mode
    problems += check_slug(label, (*place, "label"))
    try:
        fit = _fit_settings(written)
    except ValueError as error:
        problems.append(Problem((*place, "fit"), str(error)))
    if problems:
        raise InvalidInput(problems)
    return EncoderEntry(label, written, config, fit, place)


def _model_keys(written: Entry, place: Place) -> list[str]:
    import generative

    if written.model is None:
        return list(OF_DIFFUSIONS)
    try:
        return [item.name for item in dataclasses.fields(generative.model_class(written.model).Config)]
    except ValueError as error:
        raise InvalidInput([Problem((*place, "model"), str(error))]) from error


def _fit_settings(written: Entry) -> dict[str, Any]:
    """Of `generative.fit`, without the seed; steps 0 leave the model untrained. Raises ValueError."""
    import generative
    from generative.fit_settings import FitConfig
    from mpagents.fit_specification import PICTURE_TIMES

    if written.model is None:
        if written.fit:
            raise ValueError("a checkpoint isn't fitted: leave fit out, or name a model")
        return {}
    if "seed" in written.fit:
        raise ValueError("seed: an encoder is fitted once, by seed 0; take it out")
    untrained = written.fit.get("steps") == 0
    made: Any = generative.configured(FitConfig, written.fit | ({"steps": 1} if untrained else {}), "fit")
    plain = dataclasses.asdict(made) | ({"steps": 0} if untrained else {})
    plain["pictures_every"] = made.pictures_every or max(1, made.steps // PICTURE_TIMES)
    del plain["seed"]
    return plain


def resolve_encoder(entry: EncoderEntry, env: EnvironmentSpec, spaces: Spaces) -> tuple[EncoderSpec, Any]:
    """(specification, the encoder before it is fitted). Raises ValueError where it can't be used on this environment."""
    written, config = entry.written, dict(entry.config)
    content = None
    if written.checkpoint is not None:
        from mpagents.encoder_file import fingerprint
        from mpagents.encoders import Encoder

        path = Path(written.checkpoint).resolve()
        encoder = Encoder.load(path, trust=True, **entry.written.settings, **config)  # the user names it in the study
        content = fingerprint(path)
    else:
        encoder, config = _untrained(entry, env, spaces)
    player = checkpoint_hash(Path(written.data.policy) / "checkpoint")
    content = " ".join(filter(None, (content, player))) or None
    encoder.space(spaces.observation)
    spec = EncoderSpec(
        entry.label, slug(written.model or Path(str(written.checkpoint)).stem), written.model,
        str(Path(written.checkpoint).resolve()) if written.checkpoint else None, content,
        dataclasses.asdict(encoder.settings), config, entry.fit, dataclasses.asdict(written.data),
    )  # fmt: skip
    return EncoderSpec.from_json(json.loads(json.dumps(dataclasses.asdict(spec)))), encoder


def _untrained(entry: EncoderEntry, env: EnvironmentSpec, spaces: Spaces) -> tuple[Any, dict[str, Any]]:
    """(an encoder with a new model, the model's whole configuration), tried on made-up data."""
    import torch

    import generative
    from mpagents.encoders import Encoder
    from mpagents.fit_source import told_by_data
    from mpagents.fit_specification import try_model

    name = str(entry.written.model)
    found: Any = generative.model_class(name)
    source = _blank(entry, found.Config, env, spaces)
    predicts = entry.written.data.target is not None and "head" in {field.name for field in dataclasses.fields(found.Config)}
    given = ({"head": "gaussian"} if predicts else {}) | entry.config  # a state is numbers
    resolved = generative.configured(found.Config, {**told_by_data(found.Config, given, source), **given}, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if entry.fit["steps"]:
            try_model(found(resolved), source, BLANK_ROWS)
        encoder = Encoder(found(resolved), **entry.written.settings)
    return encoder, dataclasses.asdict(resolved)


class _Blank:
    """Rows as this environment's will be, of made-up numbers, and how many grey levels they have."""

    def __init__(self, rows: Any, levels: int | None) -> None:
        self.rows, self.levels = rows, levels

    def sample(self, n: int, generator: Any) -> Any:
        return self.rows.sample(n, generator)


def _blank(entry: EncoderEntry, config_class: type, env: EnvironmentSpec, spaces: Spaces) -> _Blank:
    from gymnasium.spaces import Discrete
    from gymnasium.spaces.utils import flatdim

    from generative.windows import Reading, windows
    from mpagents.encoder_input import entry as part

    leaf: Any = part(spaces.observation, entry.written.key)
    data, rng = entry.written.data, np.random.default_rng(0)
    n = max(BLANK_ROWS, 2 * (data.length or 1))
    pictures = leaf.dtype == np.uint8
    high = int(leaf.high.max()) if pictures else 1
    obs = rng.integers(0, 2, (n, *leaf.shape)) * high if pictures else rng.standard_normal((n, *leaf.shape))
    obs = obs.astype(leaf.dtype)
    begun: Any = None
    info: dict[str, Any] = {}
    if pictures or data.target is not None:
        begun, info = _begun(env)
    if pictures:
        obs[0] = begun if entry.written.key is None else begun[entry.written.key]  # frames may hold greys
    x = seen(entry.written, config_class, obs)
    discrete = isinstance(spaces.action, Discrete)
    action = np.zeros(n, np.int32) if discrete else np.zeros((n, flatdim(spaces.action)), np.float32)
    columns = {"x": x, "first": np.arange(n) == 0, "action": action, "reward": np.zeros(n, np.float32)}
    columns |= {name: np.zeros(n, bool) for name in ("terminated", "truncated")}
    if data.target is not None:
        columns[data.target] = np.zeros((n, _state_size(env, info)), np.float32)
    reading = Reading(data.length, target=data.target)
    num_actions = int(spaces.action.n) if isinstance(spaces.action, Discrete) else None
    return _Blank(windows(columns, np.array([[0, n]]), reading, num_actions), high + 1 if pictures and x.ndim == 4 else None)


def seen(written: Entry, config_class: type, obs: np.ndarray) -> np.ndarray:
    """Observations [n, …] as a model with this configuration takes them: x [n, …]."""
    import torch

    from mpagents.encoder_input import frames, vectors

    names = {item.name for item in dataclasses.fields(config_class)}
    tensor = torch.from_numpy(obs)
    pictorial = obs.dtype == np.uint8 and obs.ndim > 2 and names & {"shape", "image_shape", "height", "autoencoder"}
    return (frames(tensor, None, written.size, bool(written.grey)) if pictorial else vectors(tensor)).numpy()


def _begun(env: EnvironmentSpec) -> tuple[Any, dict[str, Any]]:
    """(first observation, info) of an episode."""
    from mpagents.environments import make

    made = make(env)
    begun = made.reset(seed=0)
    made.close()
    return begun


def _state_size(env: EnvironmentSpec, info: dict[str, Any]) -> int:
    if "state" not in info:
        raise ValueError(f"data.target is 'state', and info of {env.id!r} has none")
    return int(np.size(info["state"]))
