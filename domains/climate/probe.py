"""Opens an untrusted NetCDF file in a process of its own: damaged ones can crash the library or hang it for ever.

`check(path)` runs this module on the file and turns what happens into one UserError.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sciconsist.errors import UserError

SECONDS = 60  # to open a file and read the ends of its variables
_MAGIC = {b"CDF\x01": "netcdf3", b"CDF\x02": "netcdf3", b"CDF\x05": "netcdf5", b"\x89HDF": "hdf5", b"GRIB": "grib"}


def kind_of(path: Path) -> str:
    """netcdf3, netcdf5, hdf5, grib, zarr or unknown, by the first bytes and not by the name."""
    if path.is_dir():
        marks = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
        return "zarr" if any((path / mark).exists() for mark in marks) else "folder"
    with path.open("rb") as file:
        return _MAGIC.get(file.read(4), "unknown")


def check(paths: Sequence[Path], seconds: float = SECONDS) -> None:
    """Raises UserError when a file does not open, is cut short, or takes longer than the deadline.

    The child names each file before it opens it, so the last name it said is the one to blame.
    """
    command = [sys.executable, "-m", "sciconsist.domains.climate.probe", *(str(p.resolve()) for p in paths)]
    deadline = seconds * (1 + len(paths) / 10)
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=deadline, check=False)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        path = paths[max(0, said.count("\n") - 1)]
        raise UserError(f"{path}: does not open within {deadline:g} s; it is damaged, fetch it again") from None
    if run.returncode == 0:
        return
    *opened, last = run.stdout.strip().split("\n")
    if run.returncode == 3:
        raise UserError(f"{paths[len(opened) - 1]}: damaged NetCDF ({last}); fetch it again")
    path = paths[len(opened)]
    raise UserError(f"{path}: the NetCDF library crashes on it (status {run.returncode}); fetch it again")


def read_ends(path: Path) -> None:
    """Reads coordinates and the first and last slab of every variable: a cut file fails here and not later."""
    import netCDF4

    if kind_of(path) == "netcdf3":
        # the C library pads a short classic file with fill values and says nothing
        import warnings

        from scipy.io import netcdf_file

        warnings.simplefilter("ignore")
        netcdf_file(str(path), mmap=True)
    with netCDF4.Dataset(str(path)) as data:
        data.set_auto_maskandscale(False)
        for variable in data.variables.values():
            if variable.size > 1e12:
                raise ValueError(f"{variable.name} claims {variable.size} values")
            if variable.ndim <= 1:
                variable[...]
            elif variable.shape[0]:
                variable[0], variable[-1]


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            print(name, flush=True)
            read_ends(Path(name))
    except Exception as error:  # any of the ten types that readers leak: the parent makes one of it
        print(" ".join(str(error).split())[:160])
        sys.exit(3)
