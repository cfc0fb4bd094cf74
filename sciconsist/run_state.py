"""The state of a training run, in memory and on disk: there always a whole one, also after kill -9.

`state-00001000/` holds `tensors.safetensors` and `state.json` with its sha256. A new one is written
under a temporary name, flushed, renamed, and only then is the one before removed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sciconsist.checkpoint import fill, write_tensors
from sciconsist.ema import EMA, Decay, Profile
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.parallel import average
from sciconsist.recipes import Recipe
from sciconsist.weighting import LearnedWeight

Validate = Callable[[FlowMap, int], Mapping[str, float]]  # (model with averaged weights, step) -> figures
PREFIX = "state-"


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write the state of `step`, then remove older ones."""
    flat = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    target = folder / f"{PREFIX}{step:08d}"
    with atomic_path(target) as temporary:
        temporary.mkdir()
        write_tensors(flat, temporary / "tensors.safetensors")
        checked = {**info, "step": step, "sha256": sha256_file(temporary / "tensors.safetensors")}
        (temporary / "state.json").write_text(json.dumps(checked, indent=1, sort_keys=True))
        for path in (temporary / "tensors.safetensors", temporary / "state.json", temporary):
            flush(path)
    flush(folder)
    for old in folder.glob(f"{PREFIX}*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    for left in folder.glob(".tmp-*"):  # of a run that was killed while saving
        if PREFIX in left.name:
            shutil.rmtree(left, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole state, or None where there is none. A damaged one gives way to the one before."""
    reasons = []
    for state in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            info = json.loads((state / "state.json").read_text())
            if sha256_file(state / "tensors.safetensors") != info["sha256"]:
                raise ValueError("the sha256 of its tensors does not match")
            return load_file(state / "tensors.safetensors"), info
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reasons.append(f"{state}: {error}")
    if reasons:
        raise UserError(
            f"no whole training state left ({'; '.join(reasons)}); start anew in another folder, with init="
        )
    return None


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Run:
    """What changes from step to step, and what a state on disk must hold. `place`: this process among all."""

    def __init__(
        self, model: FlowMap, recipe: Recipe, lr: float, weight_decay: float, profile: Profile | None,
        place: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self.model, self.place = model, place
        if profile is None and recipe.needs_target_model:
            profile = Decay(0.999)
        self.ema = None if profile is None else EMA(model, profile)
        self.target: FlowMap | None = None
        if recipe.needs_target_model and self.ema is not None:
            self.target = copy.deepcopy(model)
            for name, value in (*self.target.named_parameters(), *self.target.named_buffers()):
                if name in self.ema.weights:
                    value.data = self.ema.weights[name]  # shared: the target moves with the average
        matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        self.weighting: LearnedWeight | None = None
        if recipe.weight == "learned":
            self.weighting = LearnedWeight(len(model.rows)).to(next(model.parameters()).device)
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        if self.weighting is not None:
            groups.append({"params": list(self.weighting.parameters()), "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.99))
        self.step, self.seconds, self.skipped, self.failures = 0, 0.0, 0, 0

    def advance(self, total: Tensor, clip: float, figures: dict[str, Tensor]) -> Tensor:
        """Backward, clip, update, average. Without finite loss and gradient no weight changes.

        `figures` are the step's loss and its parts; of several processes they become the means.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.place[1] > 1:
            gradients = [gradient(p) for g in self.optimizer.param_groups for p in g["params"]]
            average([*gradients, *figures.values()])
        groups = self.optimizer.param_groups[: None if self.weighting is None else -1]  # the last one is not clipped
        parameters = [p for g in groups for p in g["params"] if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip > 0 else math.inf)
        self.step += 1
        if bool(torch.isfinite(norm) & torch.isfinite(figures["loss"])):
            self.optimizer.step()
            self.failures = 0
            if self.ema is not None:
                self.ema.update(self.model, self.step - self.skipped)
        else:
            self.skipped, self.failures = self.skipped + 1, self.failures + 1
        return norm.detach()

    def averaged(self) -> Mapping[str, Tensor]:
        return self.model.state_dict() if self.ema is None else self.ema.weights

    def validated(self, validate: Validate) -> dict[str, float]:
        """The figures of the averaged weights; the raw ones are back afterwards."""
        raw = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged())
        self.model.eval()
        try:
            with torch.no_grad():
                return dict(validate(self.model, self.step))
        finally:
            self.model.load_state_dict(raw)
            self.model.train()

    def tensors(self) -> dict[str, Tensor]:
        flat = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.weighting is not None:
            flat |= {f"weighting.{k}": v for k, v in self.weighting.state_dict().items()}
        if self.ema is not None:
            flat |= {f"ema.{k}": v for k, v in self.ema.weights.items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in entries.items()}
        return flat

    def info(self) -> dict[str, Any]:
        profile = None if self.ema is None else {"kind": type(self.ema.profile).__name__, **asdict(self.ema.profile)}
        counts = {"seconds": self.seconds, "skipped": self.skipped, "failures": self.failures}
        return {**counts, "ema": profile, "torch": torch.__version__, "threads": torch.get_num_threads()}

    def restore(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        for key, wanted in {**signature, "ema": self.info()["ema"]}.items():
            if info[key] != wanted:
                raise UserError(f"resume: the run began with {key} {info[key]}, now it is {wanted}; or use init=")
        fill(self.model, part(tensors, "model."), "resume")
        if bool(learned := part(tensors, "weighting.")) != (self.weighting is not None):
            raise UserError("resume: the run began with another weight of the times; take the same, or use init=")
        if self.weighting is not None:
            self.weighting.load_state_dict(learned)
        if self.ema is not None:
            self.ema.load(part(tensors, "ema."))
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in part(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            entries.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.seconds, self.skipped = info["step"], info["seconds"], info["skipped"]
        self.failures = info["failures"]


def gradient(parameter: Tensor) -> Tensor:
    """A parameter's gradient, zero where no row of this process reached it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
