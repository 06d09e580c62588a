"""Generative models behind one contract, as state encoders and world models.

    import generative
    model = generative.build("vae", latent=8)
    generative.save(model, "vae.safetensors")
    model = generative.load("vae.safetensors")

A user's own model needs no registration: name it "package.module:Class". Everything is imported where it is first used:
`import generative` loads no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from generative.fitting import Fit, fit
    from generative.model import GenerativeModel, capabilities
    from generative.sources import source
    from generative.storage import load, save

MODELS: dict[str, str] = {  # name: "module:Class"
    "perceptron": "generative.networks.perceptron:Perceptron",
    "mlp": "generative.networks.mlp:MLPModel",
    "cnn": "generative.networks.cnn:CNNModel",
    "unet": "generative.networks.unet:UNetModel",
    "classifier": "generative.networks.classifier:Classifier",
    "segmenter": "generative.networks.segmenter:Segmenter",
    "elman_rnn": "generative.networks.elman_rnn:ElmanRNN",
    "lstm": "generative.networks.lstm:LSTM",
    "transformer": "generative.networks.transformer:Transformer",
    "linear_autoencoder": "generative.autoencoders.linear_autoencoder:LinearAutoencoder",
    "autoencoder": "generative.autoencoders.autoencoder:Autoencoder",
    "denoising_autoencoder": "generative.autoencoders.denoising_autoencoder:DenoisingAutoencoder",
    "vae": "generative.autoencoders.vae:VAE",
    "beta_vae": "generative.autoencoders.beta_vae:BetaVAE",
    "fvsbn": "generative.autoregressive.fvsbn:FVSBN",
    "nade": "generative.autoregressive.nade:NADE",
    "made": "generative.autoregressive.made:MADE",
    "pixel_rnn": "generative.autoregressive.pixel_rnn:PixelRNN",
    "pixel_cnn": "generative.autoregressive.pixel_cnn:PixelCNN",
    "gated_pixel_cnn": "generative.autoregressive.gated_pixel_cnn:GatedPixelCNN",
    "wavenet": "generative.autoregressive.wavenet:WaveNet",
    "vrnn": "generative.recurrent.vrnn:VRNN",
    "conditional_vrnn": "generative.recurrent.conditional_vrnn:ConditionalVRNN",
    "nice": "generative.flows.nice:NICE",
    "real_nvp": "generative.flows.real_nvp:RealNVP",
    "glow": "generative.flows.glow:Glow",
    "gan": "generative.adversarial.gan:GAN",
    "unrolled_gan": "generative.adversarial.unrolled_gan:UnrolledGAN",
    "wgan": "generative.adversarial.wgan:WGAN",
    "diffusion": "generative.diffusion.diffusion:Diffusion",
    "latent_diffusion": "generative.diffusion.latent_diffusion:LatentDiffusion",
    "ensemble_dynamics": "generative.world.ensemble_dynamics:EnsembleDynamics",
    "clip": "generative.contrastive.clip:CLIP",
    "world_model": "generative.world.world_model:WorldModel",
    "diffusion_world_model": "generative.world.diffusion_world_model:DiffusionWorldModel",
}

_HOME = {
    "Fit": "generative.fitting",
    "fit": "generative.fitting",
    "source": "generative.sources",
    "GenerativeModel": "generative.model",
    "capabilities": "generative.model",
    "load": "generative.storage",
    "save": "generative.storage",
}

__all__ = [
    "MODELS", "Fit", "GenerativeModel", "build", "capabilities", "configured", "fit", "load", "model_class", "save", "source",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'generative' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def build(name: str, /, **config: Any) -> GenerativeModel:
    """A new model by its registered name or "package.module:Class". Raises ValueError for unknown names, keys and types."""
    found = model_class(name)
    return found(configured(found.Config, config, name))


def model_class(name: str) -> type[GenerativeModel]:
    """The class of a registered name or of "package.module:Class". Raises ValueError naming the nearest known name."""
    from generative.model import GenerativeModel

    path = MODELS.get(name, name)
    module_name, _, class_name = path.partition(":")
    if ":" not in path:
        raise ValueError(f"unknown model {name!r}{_nearest(name, MODELS)}; or name your own as 'package.module:Class'")
    if not module_name or module_name.startswith(".") or not class_name:
        raise ValueError(f"model {name!r} should be a registered name or 'package.module:Class'")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and something that it imports doesn't
        raise ValueError(f"model {name!r}: no module {module_name!r} on the path of this folder") from error
    except AttributeError as error:
        raise ValueError(f"model {name!r}: module {module_name!r} has no class {class_name!r}") from error
    if not (isinstance(found, type) and issubclass(found, GenerativeModel) and hasattr(found, "Config")):
        raise ValueError(f"model {name!r} is no model; expected a subclass of generative.GenerativeModel with a Config")
    return found


def configured(config_class: type, values: Mapping[str, Any], place: str) -> Any:
    """A `config_class` from plain values: lists become tuples, mappings nested dataclasses, ints floats, as annotated.

    Raises ValueError, naming `place`, for unknown keys, missing ones and values of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    for key in values:
        if key not in fields:
            raise ValueError(f"{place}: unknown key {key!r}{_nearest(key, fields)}")
    empty = dataclasses.MISSING
    missing = [k for k, f in fields.items() if k not in values and f.default is empty and f.default_factory is empty]
    if missing:
        raise ValueError(f"{place}: missing {', '.join(missing)}; a value is required")
    hints = get_type_hints(config_class)
    return config_class(**{key: _fitted(value, hints[key], f"{place}.{key}") for key, value in values.items()})


def _fitted(value: Any, kind: Any, place: str) -> Any:
    """`value` as the annotation `kind` has it; annotations beyond the usual ones are taken on trust."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _fitted_union(value, parts, kind, place)
    if origin is Literal:
        if any(value == part and type(value) is type(part) for part in parts):
            return value
        raise ValueError(f"{place} is {value!r}; expected {' or '.join(map(repr, parts))}")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(kinds) != len(value):
            raise ValueError(f"{place} is {value!r}; expected {len(kinds)} values")
        return tuple(_fitted(item, part, f"{place}.{i}") for i, (item, part) in enumerate(zip(value, kinds)))
    if kind is float and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return configured(kind, value, place)  # type: ignore[arg-type]
    expected = type(None) if kind is None else origin or kind
    if kind is Any or not isinstance(expected, type):
        return value
    if isinstance(value, expected) and not (isinstance(value, bool) and expected is int):
        return value
    raise ValueError(f"{place} is {value!r}; expected {getattr(kind, '__name__', kind)}")


def _fitted_union(value: Any, parts: tuple, kind: Any, place: str) -> Any:
    if type(value) in parts:  # exactly: 3 stays an int in `float | int`
        return value
    problems = []
    for part in parts:
        try:
            return _fitted(value, part, place)
        except ValueError as error:
            problems.append(error)
    raise ValueError(f"{place} is {value!r}; expected {kind}") from problems[0]


def _nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'vae'? (known: …)'."""
    known = sorted(known)
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return (f"; did you mean {match[0]!r}?" if match else "") + f" (known: {', '.join(known) or 'none'})"
