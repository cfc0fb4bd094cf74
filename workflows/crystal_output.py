"""Writing crystals while they are made: one CIF each, whole or not at all, and symmetrised copies."""

from __future__ import annotations

import re
from pathlib import Path

from pymatgen.core import Structure

from sciconsist.domains.crystals.files import cif_text, write_structure
from sciconsist.files import atomic_path

SYMMETRY = 0.1  # Å, within which symmetrised copies may move atoms
OURS = "_sciconsist_"


class Folder:
    """A folder of numbered CIFs; `finish` removes what an earlier, longer run of ours left behind."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def add(self, structure: Structure) -> Path:
        """Write the next crystal, P1, with what its `properties` say of its making. Raises OSError."""
        name = f"{self.count:05d}.cif"
        origin = {k: v for k, v in structure.properties.items() if str(v)}
        write_structure(self.path / name, structure, origin)
        copies = self.path / "symmetrized"
        copies.mkdir(exist_ok=True)
        try:
            text = cif_text(structure, {**origin, "symmetrized_within": f"{SYMMETRY} Å"}, SYMMETRY)
        except Exception:  # pymatgen and spglib raise several kinds where they find no symmetry: no copy then
            (copies / name).unlink(missing_ok=True)
        else:
            with atomic_path(copies / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        self.count += 1
        return self.path / name

    def finish(self) -> None:
        for folder in (self.path, self.path / "symmetrized"):
            for file in folder.glob("*.cif"):
                old = re.fullmatch(r"\d{5}", file.stem) and int(file.stem) >= self.count
                if old and OURS in file.read_text(encoding="utf-8", errors="replace"):
                    file.unlink()
