"""Crystals: files, network, generation, metrics, thermodynamics and screening, on pymatgen Structures."""

import warnings

from pymatgen.core import Element

# pymatgen warns once an element that noble gases have no electronegativity, whenever a formula is written: the
# values are cached, so asking for them here keeps that from users, who can do nothing about it.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _element in Element:
        _ = _element.X
