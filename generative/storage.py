"""A trained model in one safetensors file that holds no code and can't be half there.

The tensors are the model's `state_dict`, parameters and buffers alike; a tensor known by several names (tied weights) is
written once. The file's metadata holds, as JSON, the format's version, the model's name and its configuration, and a SHA-256
over that JSON and every tensor. The hash finds damage; it isn't a signature. What makes a stranger's file safe to open is that
only models of this package are built from it: others need `trust=True`, since to import a module is to run it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from generative import MODELS, configured, model_class
from generative.model import GenerativeModel

FORMAT = 1


def save(model: GenerativeModel, path: str | os.PathLike[str]) -> None:
    """Write a model to a file, atomically. Raises ValueError where `load` could not build it again."""
    name = _name_of(type(model))
    tensors, aliases = _tensors_of(model)
    try:
        config = dataclasses.asdict(model.config)
        content = {"format": FORMAT, "model": name, "config": config, "aliases": aliases}
        text = json.dumps(content, allow_nan=False, sort_keys=True)
        restored = configured(type(model).Config, json.loads(text)["config"], name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the configuration of {name} can't be stored: {error}; use finite numbers, text and tuples"
        ) from error
    if restored != model.config:
        raise ValueError(f"the configuration of {name} reads back as {restored}; expected {model.config}: annotate its fields")
    metadata = {"generative": text, "sha256": _hash(text, tensors)}
    _write_atomically(Path(path), safetensors.torch.save(tensors, metadata=metadata))


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu", *, trust: bool = False) -> GenerativeModel:
    """The model in a file, equal to the saved one to the bit, on `device`, in evaluation mode.

    Torch's global random state is left as it was. Raises ValueError where the file is truncated, foreign, altered or newer,
    or names a model outside this package without `trust`.
    """
    content, tensors = _read(Path(path))
    name = content["model"]
    if not (trust or name in MODELS or name in MODELS.values() or name.startswith(("generative.", "generative:"))):
        raise ValueError(
            f"{path} holds a model of class {name!r}; to import it is to run its code: pass trust=True if you trust it"
        )
    try:
        found = model_class(name)
        config = configured(found.Config, content["config"], name)
        with torch.random.fork_rng(devices=[]):
            model = found(config)
        for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            # Memory of its own, in the stored type: a model kept in float64 stays so.
            if key in tensors and tensors[key].shape == tensor.shape:
                tensor.data = torch.empty_like(tensor, dtype=tensors[key].dtype, memory_format=torch.contiguous_format)
        model.load_state_dict(tensors)
    except (ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{path}: this version's {name!r} doesn't take what the file holds: {error}") from error
    for key, tensor in model.state_dict().items():
        if not torch.equal(_bytes(tensor), _bytes(tensors[key])):
            raise ValueError(
                f"{path}: {name!r} ties {key!r} to another tensor, and the stored one wasn't tied: untie it in the class"
            )
    return model.to(device).eval()


def model_name(path: str | os.PathLike[str]) -> str:
    """The name of the model in a file, "module:Class" where it isn't registered; nothing is imported. Raises ValueError."""
    return _read(Path(path))[0]["model"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(content, tensors by every name) of a file, checked against its hash."""
    raw = path.read_bytes()
    try:
        tensors = safetensors.torch.load(raw)
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is truncated or no file of generative.save: {error}") from error
    if not metadata.keys() >= {"generative", "sha256"}:
        raise ValueError(f"{path} is a safetensors file, but no model of generative.save")
    try:
        content = json.loads(metadata["generative"])
        version = int(content["format"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its description is unreadable ({error!r})") from error
    if version > FORMAT:
        raise ValueError(f"{path} has format {version}, of a newer version; this one reads up to {FORMAT}: upgrade mpagents")
    if _hash(metadata["generative"], tensors) != metadata["sha256"]:
        raise ValueError(f"{path} is damaged or was altered: its content doesn't have the hash it carries")
    if not content.keys() >= {"model", "config", "aliases"}:
        raise ValueError(f"{path} is damaged: its description has only {', '.join(content)}")
    described = all(isinstance(content[key], kind) for key, kind in (("model", str), ("config", dict), ("aliases", dict)))
    if not described or not all(isinstance(kept, str) and kept in tensors for kept in content["aliases"].values()):
        raise ValueError(f"{path} is damaged: its description isn't one of a model")
    return content, tensors | {alias: tensors[kept] for alias, kept in content["aliases"].items()}


def _name_of(found: type[GenerativeModel]) -> str:
    """The registered name of a class, else "module:Class"."""
    path = f"{found.__module__}:{found.__qualname__}"
    name = next((name for name, registered in MODELS.items() if registered == path), path)
    if model_class(name) is not found:
        raise ValueError(f"model {path!r} can't be stored: another class is found under that name")
    return name


def _tensors_of(model: GenerativeModel) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors on the CPU, {alias: the name it is written under})."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    kept: dict[tuple, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} of {type(model).__name__} is a {type(value).__name__}; only tensors can be stored")
        place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        first = kept.setdefault(place, name) if value.numel() else name
        if first != name:
            aliases[name] = first
        else:  # a copy: safetensors refuses overlapping views of one storage
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, aliases


def _hash(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor).numpy().data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    """A CPU tensor's memory as uint8 [n], by which NaNs and zeros of either sign compare too."""
    return tensor.detach().reshape(-1).view(torch.uint8)


def _write_atomically(path: Path, content: bytes) -> None:
    """A reader, also after a crash, finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename too survives a power cut
    finally:
        os.close(folder)
