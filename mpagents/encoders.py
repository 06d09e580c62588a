"""`Encoder`: any generative model as what an agent sees by. The door from the bench to `generative`.

    encoder = Encoder.load("vae.safetensors")                    # a file of `mpagents fit`, generative.save or Encoder.save
    env = mpagents.EncodeObservation(env, encoder)               # frozen: the agent sees codes
    agent = mpagents.make_agent("dqn", env, encoder=Encoder.load("vae.safetensors", mode="finetune"))

    code = (encode(x) − mean) / std                                              [n, out_features]

`encode` is the model's own: an autoencoder's mean, a flow's latent, a diffusion's features under a little noise, a GAN's
discriminator, an autoregressive model's hidden state, a classifier's logits. Mean and standard deviation are measured on data
(`measure`; a study's stage does so) and stored, so that agents see numbers of unit scale; without, codes are as the model
gives them. A deviation counts as at least 1 % of the largest: dimensions that tell nothing aren't blown up.

Recurrent models (LSTM, Elman, Transformer or WaveNet over vectors in time, VRNN) carry a state for each environment; it belongs
to the caller, so evaluation, training and imagination never disturb each other's. They are frozen: a replay holds no states.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

import generative
from generative.model import Batch, Metrics
from mpagents.encoder_file import digest, metadata_of
from mpagents.encoder_input import as_recorded, entry
from mpagents.encoder_models import check_loss, coarsest_size, datum_shape, is_recurrent
from mpagents.results.files import write_atomically

Mode = Literal["frozen", "finetune", "joint"]
State = tuple[Tensor, ...] | None  # of a recurrent encoder, each [n, …]

SMALLEST_SHARE = 0.01  # of the largest standard deviation, that any counts as
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class EncoderSettings:
    mode: Mode = "frozen"  # finetune: the agent's gradient changes it; joint: its own loss on what the agent sees too
    key: str | None = None  # the entry of a Dict observation that is encoded; the others stay
    size: tuple[int, int] | None = None  # height and width that frames are resized to first, pixels
    grey: bool = False  # colours are made grey first
    coarsest: bool = False  # of a flow of several scales, what left last
    coefficient: float = 1.0  # joint: weight of the encoder's loss, nats a dimension of the data, beside the agent's
    gradient: Literal["both", "reconstruction", "agent"] = "both"  # joint: whose gradient reaches what encodes

    def __post_init__(self) -> None:
        if self.mode not in ("frozen", "finetune", "joint"):
            raise ValueError(f"mode is {self.mode!r}; expected 'frozen', 'finetune' or 'joint'")
        if not 0 <= self.coefficient < math.inf:
            raise ValueError(f"coefficient is {self.coefficient}; expected 0 or more")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size is {self.size}; expected height and width, at least 1 pixel each")


class Encoder(nn.Module):
    """A generative model in evaluation mode, and how observations become its codes; `settings` are `EncoderSettings`.

    Raises ValueError for models that don't encode, and modes that they can't be used in.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, **settings: Any) -> None:
        super().__init__()
        self.settings: EncoderSettings = generative.configured(EncoderSettings, settings, "encoder")
        self.name = type(model).__name__
        if not callable(getattr(model, "encode", None)):
            raise ValueError(f"{self.name} with this configuration has no `encode`; expected a model that describes its data")
        if hasattr(model, "imagine"):
            raise ValueError(f"{self.name} is a world model: an agent sees its state in a Dream, by observes='features'")
        self.model = model.eval().requires_grad_(self.mode != "frozen")
        self.shape = datum_shape(model)
        self.recurrent = is_recurrent(model)
        self.num_kept = coarsest_size(model, math.prod(self.shape)) if self.settings.coarsest else None
        with torch.no_grad():
            self.out_features = self._raw(self.blank(2), self.initial_state(2), None)[0].shape[1]
        for name, value in (("mean", 0.0), ("std", 1.0)):
            self.register_buffer(name, torch.full((self.out_features,), value), persistent=False)
        self.reached = frozenset[str]() if self.mode == "frozen" else self._check_learnable()

    @property
    def mode(self) -> Mode:
        return self.settings.mode

    def train(self, mode: bool = True) -> Encoder:
        """Always in evaluation mode: no dropout, no moving buffers, whatever the agent around it is in."""
        return super().train(False)

    def blank(self, n: int) -> Tensor:
        """n data as recorded, zeros."""
        place = next(self.model.parameters())
        dtype = torch.uint8 if len(self.shape) == 3 else torch.float32
        return torch.zeros(n, *self.shape, dtype=dtype, device=place.device)

    def initial_state(self, n: int) -> State:
        """Of a recurrent encoder; None of others."""
        if not self.recurrent:
            return None
        state = self.model.initial_state(n)
        return tuple(part.detach().clone() for part in ((state,) if isinstance(state, Tensor) else state))

    def forward(self, obs: Any, state: State = None, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(codes float32 [n, out_features], state after them) of observations as the environment gives them, [n, …].

        `first` [n]: an episode begins, so a recurrent encoder's state is forgotten. Deterministic.
        """
        x = self.recorded(obs)
        learns = torch.is_grad_enabled() and self.mode != "frozen"
        with torch.set_grad_enabled(learns):
            raw, state = self._raw(x, state, first)
            codes = (raw.float() - self.mean) / self.std
        only_itself = self.mode == "joint" and self.settings.gradient == "reconstruction"
        return (codes.detach() if only_itself else codes), state

    def recorded(self, obs: Any) -> Tensor:
        """Observations as the model takes its data: x [n, *shape]. Raises ValueError for others."""
        key = self.settings.key
        if isinstance(obs, Mapping):
            if key not in obs:
                raise ValueError(f"observation has the entries {', '.join(obs)}; set `key` to the one that is encoded")
            obs = obs[key]
        if not isinstance(obs, Tensor):
            obs = torch.as_tensor(np.asarray(obs), device=next(self.model.parameters()).device)
        return as_recorded(obs, self.shape, self.settings.size, self.settings.grey)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """The model's own loss on data as recorded, `batch["x"]`: nats, a mean over the batch."""
        return self.model.loss(batch, generator=generator)

    def space(self, observation: gym.Space) -> gym.Space:
        """The space of what is seen through the encoder. Raises ValueError where it can't see this one."""
        key = self.settings.key
        leaf = entry(observation, key)
        self.recorded(torch.from_numpy(np.zeros((1, *(leaf.shape or ())), leaf.dtype)))
        codes = gym.spaces.Box(-np.inf, np.inf, (self.out_features,), np.float32)
        return gym.spaces.Dict({**observation.spaces, key: codes}) if key else codes  # type: ignore[attr-defined]

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Standardise codes by their mean and deviation over data as recorded."""
        self.standardise(torch.cat([self.raw_codes(batch).flatten(0, -2) for batch in batches]))

    @torch.no_grad()
    def standardise(self, codes: Tensor) -> None:
        """The same over codes of `raw_codes`, [N, out_features]."""
        raw = codes.double()
        std = raw.std(0, correction=0)
        self.mean.copy_(raw.mean(0))
        self.std.copy_(std.clamp(min=max(SMALLEST_SHARE * float(std.max()), 1e-8)))

    @torch.no_grad()
    def raw_codes(self, x: Tensor) -> Tensor:
        """Codes before they are standardised, of data [N, …] as recorded, or of sequences [N, T, …]: then [N, T, F]."""
        if not self.recurrent:
            parts = (as_recorded(part, self.shape) for part in x.split(ROWS_AT_ONCE))
            return torch.cat([self._raw(part, None, None)[0] for part in parts]).float()
        state, codes = self.initial_state(len(x)), []
        for t in range(x.shape[1]):
            code, state = self._raw(as_recorded(x[:, t], self.shape), state, None)
            codes.append(code)
        return torch.stack(codes, 1).float()

    def _raw(self, x: Tensor, state: State, first: Tensor | None) -> tuple[Tensor, State]:
        if not self.recurrent:
            code = self.model.encode(x)
            return (code if self.num_kept is None else code[:, : self.num_kept]), None
        fresh = self.initial_state(len(x))
        assert fresh is not None
        if state is None:
            state = fresh
        elif first is not None:
            state = tuple(torch.where(first.reshape(-1, *[1] * (old.ndim - 1)), new, old) for new, old in zip(fresh, state))
        if hasattr(self.model, "filter"):
            after = self.model.filter(x, state[0])
            return self.model.cell.hidden(after), (after,)
        _, after = self.model.step(x, state)
        return self.model.state_features(after), after

    def _check_learnable(self) -> frozenset[str]:
        """The names of the model's parameters that codes depend on. Raises ValueError where it can't learn as asked."""
        what = f"mode {self.mode!r} of a {self.name}"
        if self.recurrent or any(isinstance(module, nn.RNNBase) for module in self.modules()):
            raise ValueError(f"{what}: recurrent models learn before the agent does, not with it; expected mode 'frozen'")
        if self.mode == "joint" and [player for player, _ in self.model.schedule] != ["model"]:
            raise ValueError(f"{what}: its players minimise losses of their own; expected 'finetune' or 'frozen'")
        if self.mode == "joint":
            check_loss(self.model, self.blank(2), what)
        names, parameters = zip(*self.model.named_parameters())
        with torch.enable_grad():
            codes = self._raw(self.blank(2), None, None)[0]
            found = torch.autograd.grad(codes.sum(), parameters, allow_unused=True) if codes.requires_grad else ()
        reached = frozenset(name for name, gradient in zip(names, found) if gradient is not None)
        if not reached:
            raise ValueError(f"{what}: no gradient goes through its codes; expected mode 'frozen'")
        return reached

    def save(self, path: str | Path) -> None:
        """One file: the model as `generative.save` writes it (and `generative.load` reads it), and the encoder's settings."""
        with tempfile.TemporaryDirectory() as folder:
            generative.save(self.model, Path(folder) / "model.safetensors")
            raw = (Path(folder) / "model.safetensors").read_bytes()
        metadata, tensors = metadata_of(raw), safetensors.torch.load(raw)
        moments = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        text = json.dumps({"settings": dataclasses.asdict(self.settings), **moments}, allow_nan=False, sort_keys=True)
        metadata |= {"encoder": text, "encoder_sha256": digest(text, metadata["sha256"])}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), safetensors.torch.save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", trust: bool = False, **changes: Any) -> Encoder:
        """From a file of `save`, or of `generative.save` (then codes aren't standardised until `measure`).

        `changes`: other settings than the stored ones, and `feature_level`, `feature_depth` of a diffusion (other codes, not
        standardised). Raises ValueError for damaged files, and for models outside this package without `trust`.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path} is no file; expected a checkpoint such as runs/fit/<label>/seed=0/best.safetensors")
        model = generative.load(path, trust=trust)
        metadata = metadata_of(path.read_bytes())
        told = json.loads(metadata.get("encoder", "{}"))
        if told and metadata.get("encoder_sha256") != digest(metadata["encoder"], metadata["sha256"]):
            raise ValueError(f"{path} is damaged or was altered: what it says of the encoder doesn't have the hash it carries")
        features = {key: changes.pop(key) for key in ("feature_level", "feature_depth") if key in changes}
        unknown = features.keys() - {field.name for field in dataclasses.fields(model.config)}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: of diffusions alone; {path} holds a {type(model).__name__}")
        measured = told if all(getattr(model.config, key) == value for key, value in features.items()) else {}
        model.config = dataclasses.replace(model.config, **features)
        encoder = cls(model, **(told.get("settings", {}) | changes))
        for name in ("mean", "std"):
            if len(measured.get(name, ())) == encoder.out_features:
                getattr(encoder, name).copy_(torch.tensor(measured[name]))
        return encoder.to(device)


def as_encoder(encoder: Any) -> Encoder:
    """An `Encoder`, or the one in a file."""
    return encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
