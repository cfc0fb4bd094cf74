"""The climate part of the demo: what is in the package is enough, and what comes out is sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciconsist.workflows.demo_climate import FACTOR, MEMBERS, MODEL, climate, example
from sciconsist.workflows.models import shipped


def test_the_example_is_a_month_of_weather() -> None:
    coarse = example()
    assert coarse.sizes == {"time": 1, "latitude": 22, "longitude": 20}
    assert coarse.t2m.min() > 240 and coarse.t2m.max() < 310 and coarse.tp.min() >= 0
    assert "Copernicus" in coarse.attrs["attribution"] and coarse.attrs["licence"]


@pytest.mark.skipif(MODEL not in shipped(), reason="the model is not in this package")
def test_the_demo_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCICONSIST_DATA_DIR", str(tmp_path / "nothing"))
    found = climate(tmp_path)
    assert found is not None and found["conservation_error"] < 1e-5
    assert [s.title for s in found["sections"]][:2] == ["Climate", "tp: maps"]
    fine = xr.open_dataset(tmp_path / "downscaled.nc")
    assert fine.t2m.shape == (MEMBERS, 1, 22 * FACTOR, 20 * FACTOR)
    assert np.isfinite(fine.to_array().values).all() and float(fine.tp.min()) >= 0
    assert float(fine.tp.std("realization").max()) > 0.1
    assert "Copernicus" in fine.attrs["attribution"]
