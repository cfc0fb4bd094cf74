"""`dataset.sciconsist`: downscaling as a method of xarray's datasets. Importing this module registers it."""

from __future__ import annotations

from typing import Any

import xarray as xr


@xr.register_dataset_accessor("sciconsist")
class SciconsistAccessor:
    """What the package does with a dataset."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def downscale(self, factor: float | None = None, **options: Any) -> xr.Dataset:
        """An ensemble of fine fields; options are those of `sciconsist.downscale`. Chunked data stay lazy."""
        from sciconsist.workflows.downscale import downscale

        return downscale(self._dataset, factor, **options)
