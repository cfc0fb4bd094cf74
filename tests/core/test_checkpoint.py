"""Model files: round trip, and every kind of broken file refused with one line that names it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sciconsist.checkpoint import load_model, read_checkpoint, save_model
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.recipes import RECIPES

CARD = {"data": "toy", "licence": "CC0-1.0", "metrics": {"w2": 0.2}}


def build(config: dict[str, Any]) -> FlowMap:
    net = nn.Linear(config["width"], 3)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
    model = FlowMap(net)
    model.config = config
    return model


def saved(path: Path, **keywords: Any) -> FlowMap:
    model = build({"domain": "toy", "width": 5})
    save_model(path, model, CARD, recipe=RECIPES["fm"], **keywords)
    return model


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = saved(path)
    loaded = load_model(path, build)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert loaded.config == {"domain": "toy", "width": 5}
    assert loaded.card["licence"] == "CC0-1.0" and len(loaded.card["sha256"]) == 64
    assert read_checkpoint(path).recipe["name"] == "fm"
    assert not loaded.training
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_half_storage_keeps_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights = build({"width": 5}).state_dict()
    weights["net.bias"] = torch.tensor([1e6, 1.0, 2.0])
    saved(path, weights=weights, half=True)
    stored = read_checkpoint(path).weights
    assert stored["net.weight"].dtype == torch.float16 and stored["net.bias"].dtype == torch.float32
    loaded = load_model(path, build).state_dict()
    assert loaded["net.weight"].dtype == torch.float32
    assert torch.allclose(loaded["net.weight"], weights["net.weight"], atol=1e-3)
    assert torch.equal(loaded["net.bias"], weights["net.bias"])


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved(path)
    whole = path.read_bytes()
    reference = read_checkpoint(path)
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        try:
            found = read_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # white space in the header may turn into other white space
            assert found.sha256 == reference.sha256 and found.config == reference.config
            assert all(torch.equal(v, found.weights[k]) for k, v in reference.weights.items())
            assert position < 8 + struct.unpack("<Q", whole[:8])[0]


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_truncated(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"m\.safetensors: not a whole safetensors file"):
        read_checkpoint(path)


def test_not_ours_absent_newer_and_unfit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match="no such model file"):
        read_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a sciconsist model"):
        read_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path, {"format": "sciconsist-model", "format_version": "99", "version": "9.9"})
    with pytest.raises(UserError, match=r"of sciconsist 9\.9.*update"):
        read_checkpoint(path)
    saved(path)
    with pytest.raises(UserError, match="do not fit"):
        load_model(path, lambda config: build({"width": 6}))
    with pytest.raises(UserError, match="not plain JSON"):
        save_model(path, build({"width": 5}), {"w2": float("nan")})
    assert json.dumps(read_checkpoint(path).card, sort_keys=True) == json.dumps(CARD, sort_keys=True)
