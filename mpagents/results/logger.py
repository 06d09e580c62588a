"""The metrics of a trial: one flat JSON object a line in `metrics.jsonl`, and the same as TensorBoard events.

Both are cut back to a checkpoint on resume: `metrics.jsonl` to its length then, TensorBoard by a `purge_step` in a new
event file (the first writer purges from 0), so that a continued curve has neither gaps nor doubles. What is kept of
`metrics.jsonl` is copied: a process that still has the old file open writes into what is nobody's any more.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from mpagents.results.files import NO_LINK, sync_folder


class Logger:
    """Writes a trial's metrics; `offset` is the length of `metrics.jsonl` to keep, `purge_step` where events restart.

    `within`: a folder that both files are renamed out of (`mpagents.results.attempt`); default: `folder`.
    """

    def __init__(self, folder: Path, *, offset: int = 0, purge_step: int = 0, within: Path | None = None) -> None:
        self.start = time.time()
        self._rows = _continued(folder / "metrics.jsonl", offset, within or folder)
        earlier = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
        # TensorBoard reads a run's event files in the order of their names, whatever the clocks of two machines say.
        stamp = max(int(self.start), *(int(seconds) for seconds in earlier if seconds.isdecimal()), 0)
        name = f"events.out.tfevents.{stamp:010d}.mpagents.{len(earlier):04d}"
        self._events_file = ((within or folder) / name).open("xb")
        if within:
            (within / name).rename(folder / name)
        self._events = RecordWriter(self._events_file)
        self._write_event(file_version="brain.Event:2")
        self._write_event(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, metrics: dict[str, Any]) -> None:
        """Log numbers and pictures (uint8 [H, W, C]); a NaN or infinite number raises FloatingPointError naming it."""
        numbers = {key: number(value) for key, value in metrics.items() if not is_picture(value)}
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{key} is {value} at step {step}; training has diverged")
        row = {"step": step, "time": round(time.time() - self.start, 3), **numbers}
        self._rows.write(json.dumps(row).encode() + b"\n")
        values = [Summary.Value(tag=key, simple_value=value) for key, value in numbers.items()]
        values += [_picture(key, value) for key, value in metrics.items() if is_picture(value)]
        self._write_event(step=step, summary=Summary(value=values))

    def text(self, tag: str, content: str) -> None:
        """Markdown in TensorBoard's text tab."""
        tensor = make_tensor_proto(np.array([content.encode()], object))
        metadata = create_summary_metadata(tag, "")
        self._write_event(summary=Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]))

    def hparams(self, values: dict[str, Any]) -> None:
        """Hyperparameters in this very run (SummaryWriter.add_hparams would open a second one)."""
        session = SessionStartInfo(start_time_secs=self.start)
        for key, value in values.items():
            if isinstance(value, bool):
                session.hparams[key].bool_value = value
            elif isinstance(value, int | float):
                session.hparams[key].number_value = value
            else:
                session.hparams[key].string_value = value if isinstance(value, str) else json.dumps(value)
        metadata = hparams_metadata.create_summary_metadata(HParamsPluginData(session_start_info=session))
        tag = hparams_metadata.SESSION_START_INFO_TAG
        summary = Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)
        self._write_event(summary=Summary(value=[summary]))

    def offset(self) -> int:
        """Flush both files to the disk; the length of `metrics.jsonl`, which a checkpoint keeps."""
        self._rows.flush()
        self._events.flush()
        os.fsync(self._rows.fileno())
        os.fsync(self._events_file.fileno())
        return self._rows.tell()

    def close(self) -> None:
        with self._rows, self._events_file:  # closed even where the disk is full
            self.offset()

    def _write_event(self, **fields: Any) -> None:
        self._events.write(Event(wall_time=time.time(), **fields).SerializeToString())


def _continued(path: Path, offset: int, within: Path) -> BinaryIO:
    """A new file in place of `path`, which has its first `offset` bytes and is open at their end."""
    kept = b""
    if offset:
        with contextlib.suppress(FileNotFoundError), os.fdopen(os.open(path, os.O_RDONLY | NO_LINK), "rb") as old:
            kept = old.read(offset)
        if len(kept) < offset:
            raise ValueError(f"{path} has {len(kept)} bytes, its checkpoint says {offset}: rows are lost; run with --fresh")
    temporary = within / f".{path.name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    file = temporary.open("xb")
    try:
        if kept:  # else there's nothing that a power cut could lose
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if kept:
            sync_folder(path.parent)
    except BaseException:
        file.close()
        temporary.unlink(missing_ok=True)
        raise
    return file


def number(value: Any) -> float | int:
    """A Python number from a number, an array or a tensor of one element."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, bool) else value


def is_picture(value: Any) -> bool:
    """uint8 [H, W, C]."""
    return isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.uint8


def _picture(tag: str, pixels: np.ndarray) -> Summary.Value:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).save(encoded, format="PNG")
    height, width, channels = pixels.shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded.getvalue())
    return Summary.Value(tag=tag, image=image, metadata=SummaryMetadata(plugin_data={"plugin_name": "images"}))
