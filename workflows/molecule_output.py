"""Writing molecules while they are made: whole records only, kept when the user stops the work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rdkit import Chem

from sciconsist.files import atomic_path


def write_stream(path: str | os.PathLike[str], molecules: Iterable[Chem.Mol]) -> int:
    """Write SDF records as they come; returns their number.

    On Ctrl-C the records finished so far become the file, then KeyboardInterrupt goes on. On any other error
    there is no file. Raises OSError.
    """
    count, stopped = 0, None
    with atomic_path(path) as temporary, Path(temporary).open("wb") as file:
        end = 0
        try:
            for mol in molecules:
                file.write(sdf_record(mol).encode())
                end, count = file.tell() if file.seekable() else 0, count + 1
        except KeyboardInterrupt as error:
            stopped = error
            if file.seekable():
                file.flush()
                file.truncate(end)
        if stopped is not None and count == 0:
            raise stopped  # nothing is finished: leave no file
    if stopped is not None:
        raise stopped
    return count


def sdf_record(mol: Chem.Mol) -> str:
    """One SDF record with its properties, ending in `$$$$`; V3000 where V2000 is too small."""
    return Chem.SDWriter.GetText(mol, kekulize=mol.GetNumBonds() > 0)
