"""What a safetensors file of a generative model says of itself, and of the encoder that it may be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def metadata_of(raw: bytes) -> dict[str, str]:
    """Of a safetensors file's content: `generative` and `sha256` of the model, `encoder` and `encoder_sha256`."""
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})


def digest(text: str, model: str) -> str:
    """SHA-256 over what is said of an encoder and the hash of its model."""
    return hashlib.sha256(f"{text}\n{model}".encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """A hash of what a file holds: equal models and settings have equal ones, whatever the order in the file."""
    metadata = metadata_of(path.read_bytes())
    return metadata.get("encoder_sha256") or metadata["sha256"]
