"""What tests share: the command line in a process of its own, and small studies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # tests run side by side: two threads each would fight for the cores

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run `mpagents …` in an empty folder; returns the completed process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "mpagents", *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, **options
        )

    return call


@pytest.fixture
def study_file(tmp_path):
    """Write a study file; returns its path."""

    def write(text: str, name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
