"""What every test shares: one thread, and real data where there is some."""

from __future__ import annotations

import getpass
import hashlib
import os
import signal
import tempfile
from pathlib import Path

# Two threads on a busy machine are up to 300 times slower; set for the commands that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
# Numba compiles a function again when its own file changes, but not when that of one it calls does.
_SOURCES = sorted(Path(__file__).resolve().parents[1].glob("domains/molecules/*.py"))
_STATE = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:16]
os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"sciconsist-tests-{getpass.getuser()}-{_STATE}")


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
