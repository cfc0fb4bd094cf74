"""What every test shares: one thread, and real data where there is some."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Two threads on a busy machine are up to 300 times slower; set for the commands that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


# A shell starts background jobs with SIGINT ignored, which children inherit; our signal tests need the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets. Skips the test where there is none."""
    name = os.environ.get("SCICONSIST_DATA_DIR")
    if not name:
        pytest.skip("SCICONSIST_DATA_DIR is not set: no real data here")
    path = Path(name).resolve()
    assert path.is_dir(), f"SCICONSIST_DATA_DIR={name} is no folder"
    return path
