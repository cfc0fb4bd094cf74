"""Every figure we print about crystals, from pymatgen Structures."""
