"""The encoders that a study's stage has made (`mpagents.encoder_stage`): where they are, and as trials see by them."""

from __future__ import annotations

from pathlib import Path

from mpagents.encoder_specification import FILE, EncoderJob
from mpagents.encoders import Encoder
from mpagents.results.files import read_json
from mpagents.specification import TrialSpec


def encoder_file(job: EncoderJob, root: Path) -> Path:
    """The file of a finished job. Raises RuntimeError where there is none."""
    status = read_json(root / job.path / "status.json") or {}
    if status.get("status") != "finished":
        problem = (status.get("error") or {}).get("message", "it was never made")
        raise RuntimeError(f"the encoder {job.encoder.name} of {job.env.label} isn't there: {problem} ({root / job.path})")
    return root / job.path / FILE


def load_encoder(spec: TrialSpec, root: Path, device: str = "cpu") -> Encoder | None:
    """The encoder of a trial in the study's folder `root`; None for raw observations."""
    if spec.encoder is None:
        return None
    path = encoder_file(EncoderJob(spec.env, spec.encoder), root)
    return Encoder.load(path, device=device, trust=True, **spec.encoder.settings)
