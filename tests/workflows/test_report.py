"""The report page: it stands alone, nothing hostile gets through, and the same input gives the same bytes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.metrics import evaluate, known_smiles
from sciconsist.domains.molecules.reference import ReferenceHistograms, qm9_gfn2
from sciconsist.domains.molecules.report import draw, molecule_sections
from sciconsist.sections import (
    Badge,
    Card,
    Gallery,
    Histogram,
    Histograms,
    Image,
    Metric,
    Section,
    Structure,
    Table,
    Text,
)
from sciconsist.workflows.report import DISCLAIMER, render, write_molecule_report, write_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--slot:scripts-->"
FETCHING = ("src", "href", "action", "formaction", "data", "poster", "srcset", "background", "xlink:href")


class Page(HTMLParser):
    """Elements, their attributes and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def molecule(smiles: str, **properties: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    for name, text in properties.items():
        mol.SetProp(name, text)
    return mol


def without_bonds(smiles: str = "CCO") -> Chem.Mol:
    mol = Chem.RWMol(molecule(smiles))
    for bond in list(mol.GetBonds()):
        mol.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    return mol.GetMol()


@pytest.fixture(scope="module")
def molecules() -> list[Chem.Mol]:
    return [molecule(s, seed="0") for s in ("CCO", "c1ccncc1", "CC#N", "C[NH2+]CC(=O)[O-]", "C1CC1O")]


def page_of(*sections: Section, title: str = "A page", **provenance: str) -> Page:
    return Page(render(title, sections, provenance))


def test_page_fetches_nothing(molecules: list[Chem.Mol]) -> None:
    page = page_of(*molecule_sections(molecules))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in FETCHING:
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, name, value[:80])
        assert not [name for name in attributes if name.startswith("on")], tag
    text = render("", molecule_sections(molecules), {})
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(style) == 1 and "url(" not in style[0] and "@import" not in style[0]
    (policy,) = (m["content"] for m in page.tags("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_licence_of_the_viewer_travels_with_it(molecules: list[Chem.Mol]) -> None:
    text = render("", molecule_sections(molecules), {})
    assert "Copyright (c) 2014, University of Pittsburgh" in text
    assert "Redistributions in binary form must reproduce" in text
    assert "GLmol" in text and "three.js Authors" in text


def test_page_without_structures_has_no_script() -> None:
    text = render("Words", [Text("Hello", paragraphs=["one", "two"])], {})
    assert "<script" not in text and "script-src 'none'" in text and len(text) < 20_000


def test_hostile_text_stays_text() -> None:
    hostile = molecule("CCO", **{HOSTILE: HOSTILE, "seed": HOSTILE})
    sections: list[Section] = [
        *molecule_sections([hostile], known=set(), known_name=HOSTILE),
        Text(HOSTILE, HOSTILE, [HOSTILE]),
        Image(HOSTILE, HOSTILE, b"<script>", HOSTILE, caption=HOSTILE),
        Table(HOSTILE, HOSTILE, [Metric(HOSTILE, 0.5, 2, 0.5, HOSTILE, HOSTILE)], HOSTILE),
        Histograms(
            HOSTILE, HOSTILE,
            [Histogram(HOSTILE, HOSTILE, 0.0, 1.0, [1, 2], [2, 1], 3, 3, 0, 1.0, 1.0, 0.1)], HOSTILE,
        ),
        Gallery(
            HOSTILE, HOSTILE,
            [
                Card(
                    HOSTILE, HOSTILE, [Badge(HOSTILE, False, HOSTILE)], [(HOSTILE, HOSTILE)],
                    structure=Structure([HOSTILE], [(0.0, 0.0, 0.0)]),
                )
            ],
        ),
    ]  # fmt: skip
    page = page_of(*sections, title=HOSTILE, **{HOSTILE: HOSTILE})
    harmless = Gallery("", cards=[Card("", structure=Structure(["C"], [(0.0, 0.0, 0.0)]))])
    plain = page_of(*molecule_sections([molecule("CCO")]), harmless)
    assert len(page.tags("script")) == len(plain.tags("script")) == 4
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert all((image.get("src") or "").startswith("data:image/png;base64,") for image in page.tags("img"))


def test_same_input_gives_the_same_bytes(tmp_path: Path, molecules: list[Chem.Mol]) -> None:
    for name in ("a.html", "b.html"):
        sections = molecule_sections(molecules, evaluate(molecules))
        write_report(tmp_path / name, title="Twice", sections=sections, provenance={"seed": 0})
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert len(first) < 800_000
    assert DISCLAIMER.encode() in first


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [Chem.Mol()],
        [without_bonds()],
        [Chem.MolFromSmiles("CCO")],
        [Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)],
        [molecule("[He]"), molecule("[H][H]"), molecule("C#C")],
    ],
    ids=["none", "no atoms", "no bonds", "no conformer", "pentavalent", "linear"],
)
def test_odd_samples_get_a_page(tmp_path: Path, samples: list[Chem.Mol]) -> None:
    write_molecule_report(tmp_path / "page.html", samples, {"samples": evaluate(samples)})
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    cards = [a for a in page.tags("li") if "card" in (a.get("class") or "").split()]
    assert len(cards) == len(samples)


def test_coordinates_that_are_not_finite_show_no_structure() -> None:
    broken = molecule("CCO")
    broken.GetConformer().SetPositions(np.full((9, 3), np.nan))
    gallery = next(s for s in molecule_sections([broken]) if isinstance(s, Gallery))
    assert gallery.cards[0].structure is None
    assert "NaN" not in render("", [gallery], {})


def test_empty_sections_say_so() -> None:
    text = render("Empty", [Gallery("G"), Histograms("H"), Table("T"), Text("X")], {})
    assert "Nothing was generated." in text and "Nothing to compare." in text


def test_cards_tell_what_a_molecule_is(molecules: list[Chem.Mol]) -> None:
    gallery = next(
        s
        for s in molecule_sections([*molecules, without_bonds()], known=known_smiles(["CCO"]))
        if isinstance(s, Gallery)
    )
    ethanol, pyridine, nothing = gallery.cards[0], gallery.cards[1], gallery.cards[-1]
    assert (ethanol.name, ethanol.detail) == ("CCO", "C₂H₆O")
    assert {b.label: b.good for b in ethanol.badges}["novel"] is False
    assert {b.label: b.good for b in pyridine.badges if b.label != "stable"} == {"valid": True, "novel": True}
    assert {b.label: b.good for b in nothing.badges}["valid"] is False
    assert nothing.drawing == "" and nothing.name == "C2H6O"
    assert ("seed", "0") in ethanol.facts


def test_structure_is_turned_and_not_mirrored() -> None:
    chiral = molecule("C[C@H](F)O")
    gallery = next(s for s in molecule_sections([chiral]) if isinstance(s, Gallery))
    structure = gallery.cards[0].structure
    assert structure is not None
    before, after = chiral.GetConformer().GetPositions(), np.array(structure.positions)

    def distances(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, None] - x[None], axis=-1)

    def handedness(x: np.ndarray) -> float:
        return float(np.linalg.det(x[[0, 2, 3]] - x[1]))

    np.testing.assert_allclose(distances(after), distances(before), atol=3e-3)
    assert handedness(after) * handedness(before) > 0
    assert len(structure.bonds) == chiral.GetNumBonds()


def test_drawing_holds_only_shapes() -> None:
    svg = draw(molecule("CC(=O)Nc1ccc(O)cc1"))
    assert set(re.findall(r"<(\w+)", svg)) == {"svg", "path"}
    assert "#" not in svg and "var(--o)" in svg and "var(--n)" in svg and "var(--ink)" in svg


def test_table_prints_shares_and_intervals(molecules: list[Chem.Mol]) -> None:
    figures = evaluate(molecules, known=known_smiles(["CCO"]))
    table = next(s for s in molecule_sections(molecules, figures) if isinstance(s, Table))
    rows = {row.name: row for row in table.rows}
    valid = rows["Valid, from the decoded bonds"]
    assert valid.value == 1.0 and valid.n == 5
    low, high = valid.interval or (0, 0)
    assert 0.5 < low < 0.6 and high == 1.0  # Wilson, 5 of 5
    assert (rows["Novel"].value, rows["Novel"].n) == (0.8, 5)
    assert "100.0 %" in render("", [table], {})


def test_histograms_count_every_sample(molecules: list[Chem.Mol]) -> None:
    for section in molecule_sections(molecules):
        if isinstance(section, Histograms):
            assert len(section.panels) == 12
            for panel in section.panels:
                assert sum(panel.samples) + panel.outside == panel.n
                assert len(panel.samples) == len(panel.reference)


def test_reference_can_be_molecules(molecules: list[Chem.Mol]) -> None:
    panels = {
        panel.title: panel
        for section in molecule_sections(molecules, None, molecules)
        if isinstance(section, Histograms)
        for panel in section.panels
    }
    same = panels["C–H"]
    assert same.n == same.n_reference and list(same.samples) == list(same.reference)
    assert ReferenceHistograms.from_molecules([]).lengths == {}
    render("", molecule_sections(molecules, None, []), {})


def test_packaged_reference_is_chemistry_with_a_source() -> None:
    reference = qm9_gfn2()
    assert reference.molecules > 30_000 and len(reference.lengths) == len(reference.angles) == 12
    assert reference.lengths["C-H"].mean == pytest.approx(1.09, abs=0.02)
    assert reference.lengths["C=O"].mean == pytest.approx(1.2, abs=0.02)
    assert reference.angles["H-C-H"].mean == pytest.approx(108, abs=2)
    for bins in (*reference.lengths.values(), *reference.angles.values()):
        assert 0.99 * bins.n < sum(bins.counts) <= bins.n
    assert all(b.start + b.width * len(b.counts) <= 182.5 for b in reference.angles.values())


def test_packaged_reference_is_small_and_attributed() -> None:
    from sciconsist.domains.molecules import reference

    file = Path(reference.__file__).with_name(reference.TABLE)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert file.stat().st_size < 100_000
    assert content["licence"] == "CC0" and "Ramakrishnan" in content["attribution"]
