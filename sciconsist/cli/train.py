"""`sciconsist train DOMAIN` and `sciconsist distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.cli.options import BatchSize, Device, Json, Output, Quiet, Seed, emit, output_folder

Data = Annotated[str, typer.Option("--data", help="A data set (qm9-gfn2), or an .npz or .sdf file.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting: lr=1e-3, network.width=64.")]
Init = Annotated[str | None, typer.Option("--init", help="A model's name or file to start from.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.0, help="Stop after so many minutes.")]
TrainSteps = Annotated[int | None, typer.Option("--steps", min=1, help="Stop after so many training steps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]


def molecules(
    data: Data,
    output: Output,
    config: Config = None,
    settings: Settings = None,
    init: Init = None,
    minutes: Minutes = None,
    steps: TrainSteps = None,
    resume: Resume = False,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a molecule model by flow matching; the folder gets model.safetensors, log.csv and the state.

    First, in a fifth of the minutes at most, small networks learn what distances a graph fixes and where atoms
    are. From then on Ctrl-C saves after the step in hand; --resume goes on. At the end, for a minute or two, samples show which
    rings and atoms come too often; the finished model avoids these.

    \b
    Example:
      sciconsist train molecules --data qm9-gfn2 --minutes 60 -o run
      sciconsist train molecules --data mine.sdf --init molecules-qm9gfn2 --set lr=3e-4 --steps 500 -o tuned
    """
    _train("molecules", data, output, config, settings, init, minutes, steps, resume, batch_size, device, seed,
           as_json, quiet)  # fmt: skip


def crystals(
    data: Annotated[
        str, typer.Option("--data", help="A data set (mp-20-bt, mp-20), an .npz, or a file or folder of CIFs.")
    ],
    output: Output,
    config: Config = None,
    settings: Settings = None,
    init: Init = None,
    minutes: Minutes = None,
    steps: TrainSteps = None,
    resume: Resume = False,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a crystal model by flow matching; the folder gets model.safetensors, log.csv and the state.

    part=composition trains, in minutes, what draws the formulas of de novo generation and leaves the rest of the
    model of --init as it is. Ctrl-C saves after the step in hand; --resume goes on.

    \b
    Example:
      sciconsist train crystals --data mp-20-bt --minutes 60 -o run
      sciconsist train crystals --data mp-20-bt --init run --set part=composition --set lr=3e-3 --minutes 10 -o whole
      sciconsist train crystals --data my_cifs --init crystals-mp20bt --set lr=3e-4 --steps 500 -o tuned
    """
    _train("crystals", data, output, config, settings, init, minutes, steps, resume, batch_size, device, seed,
           as_json, quiet)  # fmt: skip


def climate(
    data: Annotated[
        str,
        typer.Option("--data", help="A data set (era5-andes) or NetCDF, GRIB, Zarr of fine fields; several: a,b,c."),
    ],
    output: Output,
    config: Config = None,
    settings: Settings = None,
    init: Init = None,
    minutes: Minutes = None,
    steps: TrainSteps = None,
    resume: Resume = False,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a downscaling model of one domain from its fine fields, in minutes; of several, one for any region.

    One run fits the closed-form mean, the flow, the flow map and the fair CRPS, and calibrates the spread on times
    held out. The folder gets model.safetensors. Ctrl-C saves after the step in hand; --resume goes on.

    \b
    Example:
      sciconsist train climate --data era5-uk --minutes 10 -o run
      sciconsist train climate --data "mine/*.nc" --set variables='["tp"]' --set factor=5 --minutes 10 -o run
    """
    _train("climate", data, output, config, settings, init, minutes, steps, resume, batch_size, device, seed,
           as_json, quiet)  # fmt: skip


def distill(
    model: Annotated[str, typer.Argument(help="The teacher: a model's name or file.")],
    data: Data,
    output: Output,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="lmd_fd (molecules), annealed (crystals), emd_fd, psd, lsd, lsd_fd, lmd, cd or ctm."
        ),
    ] = None,
    config: Config = None,
    settings: Settings = None,
    init: Init = None,
    minutes: Minutes = None,
    steps: TrainSteps = None,
    resume: Resume = False,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil a teacher into a model of few steps, starting from its weights.

    \b
    Example:
      sciconsist distill run/model.safetensors --recipe lmd_fd --data qm9-gfn2 --minutes 60 -o student
      sciconsist distill run --data mp-20-bt --minutes 20 --set trajectories=8000 -o student
    """
    _check_end(minutes, steps)
    with output_folder(output) as folder:
        from sciconsist.workflows.devices import pick_device
        from sciconsist.workflows.models import describe
        from sciconsist.workflows.runs import Until, read_config, trainer

        domain = trainer(str(describe(model)["config"].get("domain")))
        chosen = read_config(domain.TrainConfig, config, _with_batch(settings, batch_size), **domain.DISTILL_DEFAULTS)
        until = Until(steps, minutes, seed, resume, pick_device(device), quiet)
        row = recipe or getattr(domain, "DISTILL_RECIPE", "lmd_fd")
        _report(domain.distill(model, data, folder, row, chosen, until=until, init=init), folder, as_json)


def _train(
    domain: str, data: str, output: Path, config: Path | None, settings: list[str] | None, init: str | None,
    minutes: float | None, steps: int | None, resume: bool, batch_size: int | None, device: str | None, seed: int,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """`train DOMAIN`: the same for every domain, whose module has the settings and the training."""
    _check_end(minutes, steps)
    with output_folder(output) as folder:
        from sciconsist.workflows.devices import pick_device
        from sciconsist.workflows.runs import Until, read_config, trainer

        own = trainer(domain)
        chosen = read_config(own.TrainConfig, config, _with_batch(settings, batch_size))
        until = Until(steps, minutes, seed, resume, pick_device(device), quiet)
        _report(own.train(data, folder, chosen, until=until, init=init), folder, as_json)


def _check_end(minutes: float | None, steps: int | None) -> None:
    from sciconsist.errors import UserError

    if minutes is None and steps is None:
        raise UserError("say when to stop: --minutes or --steps")


def _with_batch(settings: list[str] | None, batch_size: int | None) -> list[str]:
    return [*(settings or []), *([] if batch_size is None else [f"batch_size={batch_size}"])]


def _report(result: Any, folder: Path, as_json: bool) -> None:
    from sciconsist.parallel import join

    if join()[0] > 0:  # under torchrun the first process speaks
        return
    figures = {
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "skipped": result.skipped,
        "model": str(folder / "model.safetensors"),
    }
    emit(figures, as_json)
