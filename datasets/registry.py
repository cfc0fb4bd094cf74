"""Which data sets there are, what may be done with them, and where their files lie on this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from sciconsist.errors import UserError

FOLDERS = ("", "molecules", "crystals", "climate")  # looked through below every root, in this order

_QM9 = "Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22"
_MP = "Jain et al. 2013, doi:10.1063/1.4812323; Xie et al. 2021, arXiv:2110.06197"
_ERA5 = "Hersbach et al. 2020, doi:10.1002/qj.3803"


@dataclass(frozen=True)
class Dataset:
    """One data set. `files` maps a split to names or globs; `loader` is `module:function` in `datasets/`."""

    name: str
    domain: str
    title: str
    source: str
    licence: str
    citation: str
    files: dict[str, tuple[str, ...]]
    loader: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)  # of the files we have seen; others are not checked


def roots() -> list[Path]:
    """Folders searched for data: SCICONSIST_DATA_DIR when set, then the user's cache."""
    named = os.environ.get("SCICONSIST_DATA_DIR")
    return [*([Path(named)] if named else []), cache_dir()]


def cache_dir() -> Path:
    """Where data goes that a user gets or builds: $XDG_CACHE_HOME/sciconsist/data, by default in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sciconsist" / "data"


def entry(name: str) -> Dataset:
    """The data set of a name. Raises UserError that lists the names."""
    try:
        return DATASETS[name]
    except KeyError:
        raise UserError(f"no data set {name!r}; known: {', '.join(sorted(DATASETS))}") from None


def find(name: str, split: str | None = None) -> list[Path]:
    """Files of a split, or all files. Raises UserError: what was looked for, and where."""
    dataset = entry(name)
    if split is not None and split not in dataset.files:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(dataset.files)}")
    wanted = dataset.files[split] if split is not None else [p for ps in dataset.files.values() for p in ps]
    found = []
    for pattern in dict.fromkeys(wanted):
        matches = _search(pattern)
        if not matches:
            places = ", ".join(f"{root} (and its {', '.join(FOLDERS[1:])})" for root in roots())
            hint = "" if os.environ.get("SCICONSIST_DATA_DIR") else " or set SCICONSIST_DATA_DIR"
            raise UserError(
                f"{name}: no file {pattern} in {places}; get it from {dataset.source} and put it there{hint}"
            )
        found.extend(matches)
    return found


def load(name: str, split: str, **options: object) -> list:
    """What the data set's loader returns. Raises UserError when it has none or its files are missing."""
    dataset = entry(name)
    if dataset.loader is None:
        raise UserError(f"{name}: has no loader; its files are {', '.join(map(str, find(name, split)))}")
    module, function = dataset.loader.split(":")
    return getattr(import_module(f"sciconsist.datasets.{module}"), function)(split, **options)


def verify(name: str) -> dict[Path, bool | None]:
    """Whether each file's sha256 is the one we know; None for a file we do not know."""
    known = entry(name).sha256
    return {path: _sha256(path) == known[path.name] if path.name in known else None for path in find(name)}


def _search(pattern: str) -> list[Path]:
    for root in roots():
        for folder in FOLDERS:
            if matches := sorted((root / folder).glob(pattern)):
                return matches
    return []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_TABLE = (
    Dataset(
        "qm9-gfn2", "molecules", "QM9 molecules at their GFN2-xTB minimum",
        "the sciconsist project (or build it: sciconsist data build qm9-gfn2 --smiles FILE)", "CC0",
        f"{_QM9}; Bannwarth et al. 2019, doi:10.1021/acs.jctc.8b01176",
        {
            "train": ("qm9_gfn2_train.npz",), "val": ("qm9_gfn2_val.npz",), "test": ("qm9_gfn2_test.npz",),
            "smiles": ("qm9_smiles.csv.gz",),
        },
        "qm9_gfn2:load",
        {
            "qm9_gfn2_train.npz": "4c1aac33f50c8b6ed144745372cc490d296d55a8d8cc9c429d07b55e428e4152",
            "qm9_gfn2_val.npz": "0b5f75615785cc2588f39b2e4fe1deee7a17a678fc08182aef1cb5d525a6ef7d",
            "qm9_gfn2_test.npz": "f31cb06555ec9b9ca47319cf4af84e7e8a46853f763b30ea559a0b274a7c1d46",
            "qm9_smiles.csv.gz": "cc77cc0d1c62f9e789e1ffbac6522ef73dd7defd0883a1059664ea867f6538cd",
        },
    ),
    Dataset(
        "qm9", "molecules", "QM9 at B3LYP/6-31G(2df,p)",
        "https://doi.org/10.6084/m9.figshare.c.978904 (dsgdb9nsd xyz files) or DeepChem's gdb9.tar.gz",
        "CC0", _QM9,
        # one file, split by index; a folder of raw files is named: qm9.load(split, path=...)
        {"train": ("gdb9.sdf",), "val": ("gdb9.sdf",), "test": ("gdb9.sdf",)}, "qm9:load",
    ),
    Dataset(
        "c7h10o2", "molecules", "C7H10O2 isomers of QM9, B3LYP", "https://github.com/chemspacelab/qm9-C7O2H10",
        "MIT; QM9 CC0", _QM9, {"all": ("c7h10o2_isomers.npz",)}, "c7h10o2:load",
        {"c7h10o2_isomers.npz": "6bee056b493fb7d93124d05629da568cf0052a4460385cafcba1344439d8430f"},
    ),
    Dataset(
        "qm7", "molecules", "QM7, up to seven heavy atoms CNOS", "https://github.com/qmlcode/qml", "MIT",
        "Rupp et al. 2012, doi:10.1103/PhysRevLett.108.058301", {"all": ("qm7_7101.npz",)}, "qm7:load",
        {"qm7_7101.npz": "014dd567494a8c07d78e42a7b584604594accc12e9d8312e6431ba54092c73b7"},
    ),
    Dataset(
        "drug-like-20k", "molecules", "20,000 drug-like SMILES, no geometry", "https://zinc15.docking.org",
        "free to use with attribution", "Irwin et al. 2012, doi:10.1021/ci3001277; Sterling and Irwin 2015",
        {"smiles": ("drug_like_20k.smi",)}, None,
        {"drug_like_20k.smi": "a0ea418f934040f34b1660e0379c6ba2eda59fe0d864cc891ea3f2e36c817104"},
    ),
    Dataset(
        "mp-20-bt", "crystals", "Materials Project, at most 20 atoms, binary and ternary",
        "the sciconsist project", "CC-BY 4.0", _MP,
        {
            "train": ("mp_train.npz",), "val": ("mp_val.npz",), "test": ("mp_test.npz",),
            "large": ("mp_train_52.npz",),
        },
        "mp20bt:load",
        {
            "mp_train.npz": "f5421588811ecb1b3ba57496b25e30e218e775451c24371ce96aca2b8cca2d5c",
            "mp_val.npz": "777598f40cce4ca95ed168fd890f344998bb481c3bea67e1e5feda005ab6f01a",
            "mp_test.npz": "98b97d788b28a821615c84adc1d8784dde53ead3a08dd26d125380a5b17e6643",
            "mp_train_52.npz": "b3be1313f870aac5c9467f7dea89cf6388ffba431fdcb612a9ab0a995f2851f6",
        },
    ),
    *(
        Dataset(
            name, "crystals", title, "https://github.com/txie-93/cdvae or jiaor17/DiffCSP (data/)",
            licence, cite,
            {split: (f"{folder}/{split}.csv",) for split in ("train", "val", "test")}, f"crystal_csv:{folder}",
        )
        for name, folder, title, licence, cite in (
            ("mp-20", "mp_20", "Materials Project, at most 20 atoms", "CC-BY 4.0", _MP),
            ("mpts-52", "mpts_52", "Materials Project by year, at most 52 atoms", "CC-BY 4.0", _MP),
            ("perov-5", "perov_5", "ABX3 perovskites", "MIT", "Castelli et al. 2012, doi:10.1039/C2EE22341D"),
            ("carbon-24", "carbon_24", "Carbon phases", "CC-BY 4.0", "Pickard, Materials Cloud 2020.0026"),
        )
    ),
    Dataset(
        "era5-andes", "climate", "ERA5 monthly means 1960-2009, tropical Andes", "Copernicus C3S",
        "free with attribution to Copernicus C3S", _ERA5,
        {"train": ("andes/era5_19??.nc", "andes/era5_200[0-4].nc"), "val": ("andes/era5_200[5-9].nc",)},
        "reanalysis:andes",
    ),
    Dataset(
        "era5land-kerala", "climate", "ERA5-Land daily 2022-2024, Kerala", "Copernicus C3S",
        "free with attribution to Copernicus C3S", "Muñoz-Sabater et al. 2021, doi:10.5194/essd-13-4349-2021",
        {
            "train": ("kerala/kerala_era5_202[23].nc",), "val": ("kerala/kerala_era5_2024.nc",),
            "ground": ("static/IFS_TCO1279_orography_2048x1024.nc",),
        },
        "reanalysis:kerala",
    ),
    Dataset(
        "era5-uk", "climate", "ERA5 hourly t2m, March 2019, United Kingdom", "Copernicus C3S",
        "free with attribution to Copernicus C3S", _ERA5,
        # one file: hours before 480 train, from 504 validate
        {"train": ("era5-2mt-2019-03-uk.grib",), "val": ("era5-2mt-2019-03-uk.grib",)}, "reanalysis:uk",
    ),
    Dataset(
        "era5-france", "climate", "ERA5 monthly t2m, msl, tp 1979-2022, northern France", "Copernicus C3S",
        "free with attribution to Copernicus C3S", _ERA5, {"all": ("france_era5_monthly_1979-2022.nc",)},
        "reanalysis:france",
    ),
    Dataset(
        "cordex-iberia", "climate", "EURO-CORDEX EUR-44 daily winter tas and pr, Iberia", "https://esgf.io (CORDEX)",
        "CORDEX terms of use (research)", "Jacob et al. 2014, doi:10.1007/s10113-013-0499-2",
        {"all": ("iberia_cordex_1983-2002.nc",)}, "reanalysis:iberia",
    ),
    Dataset(
        "fmi-radar", "climate", "Radar rain rate, Finland, 5 minutes, about 1 km", "https://en.ilmatieteenlaitos.fi/open-data",
        "CC BY 4.0", "Finnish Meteorological Institute", {"all": ("fmi_radar_20160928.nc",)}, "radar:fmi",
    ),
    Dataset(
        "arpege-arome", "climate", "One ARPEGE and AROME run, 2018-05-01, north-west France", "Météo-France",
        "Etalab 2.0", "Météo-France",
        {"coarse": ("arpege_arome/arpege_PRECIP_NW_*.grib",), "fine": ("arpege_arome/arome_PRECIP_NW_*.grib",)},
        "reanalysis:arome",
    ),
    Dataset(
        "arpege-nw", "climate", "ARPEGE 0.1 degree hourly t2m, 2018-05-01, north-west France", "Météo-France",
        "Etalab 2.0", "Météo-France",
        {"all": ("arpege_arome/arpege_2m_NW_*.grib",), "ground": ("arpege_arome/NW_masks.grib",)}, "reanalysis:arpege",
    ),
    Dataset(
        "era-interim", "climate", "ERA-Interim, one global month at 0.75 degrees", "ECMWF", "CC BY 4.0",
        "Dee et al. 2011, doi:10.1002/qj.828", {"all": ("global/ERA_Interim_2017a.nc",)}, "reanalysis:era_interim",
    ),
    Dataset(
        "ersst", "climate", "ERSST v5, global monthly sea surface temperature at 2 degrees", "NOAA PSL",
        "public domain", "Huang et al. 2017, doi:10.1175/JCLI-D-16-0836.1",
        {"all": ("global/ersst_sst.mnmean_2010-2020.nc",)}, "reanalysis:ersst",
    ),
)  # fmt: skip

DATASETS = {dataset.name: dataset for dataset in _TABLE}
