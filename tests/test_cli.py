"""The command line: help that imports nothing heavy, statuses, signals."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sciconsist import __version__, extras
from sciconsist.cli import app, main
from sciconsist.errors import PartlyDone, UserError

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sciconsist", *args]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


Install = Callable[[Callable[[], None]], None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a function the only command, `try`."""

    def install(function: Callable[[], None]) -> None:
        monkeypatch.setitem(sys.modules, "tried", SimpleNamespace(tried=function))
        monkeypatch.setattr(app, "COMMANDS", (("try", "tried:tried", "A command of the tests."),))

    return install


# --- help


def test_help_lists_the_commands_and_imports_none() -> None:
    code = """
import sys
from sciconsist.cli import main
status = main(["--help"])
heavy = {"torch", "numpy", "rdkit", "pymatgen", "xarray", "scipy", "pydantic", "sciconsist.cli.doctor"}
assert status == 0 and not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for words, _, help in app.COMMANDS:
        assert words.split()[0] in done.stdout
        assert len(words.split()) > 1 or help in done.stdout


@pytest.mark.parametrize("words", [row[0] for row in app.COMMANDS])
def test_every_command_has_help_with_an_example(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"sciconsist {words}" in out.partition("Example")[2], "no example"
    assert "--json" in out


def test_groups_have_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (("models list", "nowhere:a", "List models."), ("models show", "nowhere:b", "Describe a model."))
    monkeypatch.setattr(app, "COMMANDS", rows)
    assert main(["models", "--help"]) == 0
    assert "Describe a model." in capsys.readouterr().out
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "error: Missing command. (see 'sciconsist models --help')\n"


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "doctor" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


# --- doctor


def test_doctor_json(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sciconsist"] == __version__
    assert found["torch"]["version"] == torch.__version__
    assert found["torch"]["threads"] == 1
    assert {"molecules", "screen", "climate", "cluster", "plots", "test", "dev"} == set(found["extras"])
    for extra in found["extras"].values():
        assert bool(extra["missing"]) == bool(extra["install"])


def test_doctor_names_the_line_that_installs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, absent = extras.version_of, ("chgnet", "rich")
    monkeypatch.setattr(extras, "version_of", lambda r: None if r.startswith(absent) else real(r))
    assert main(["doctor"]) == 2  # rich is a requirement of the package itself
    out = capsys.readouterr().out
    assert "chgnet>=0.4.2" in out
    assert f"{sys.executable} -m pip install 'rich>=13'" in out


def test_metadata_and_checkout_declare_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib import metadata

    try:
        requires = metadata.requires("sciconsist")
    except metadata.PackageNotFoundError:
        pytest.skip("sciconsist is not installed: no metadata to compare with")
    checkout = extras.declared()
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "sciconsist" / "extras.py"))
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    assert {k: sorted(v) for k, v in extras.declared().items()} == {k: sorted(v) for k, v in checkout.items()}


def test_need_names_the_line_that_installs() -> None:
    assert extras.need("json", "screen", "nothing") is json
    with pytest.raises(UserError, match=r"relaxing crystals needs no_such_module.*-m pip install .*chgnet"):
        extras.need("no_such_module", "screen", "relaxing crystals")


# --- statuses


@pytest.mark.parametrize("args", [["doctor", "--no"], ["nonsense"], ["--nonsense"], ["doctor", "extra"]])
def test_a_wrong_request_is_one_line_and_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.sdf: record 3:\n  bad"), 2, "error: a.sdf: record 3: bad\n"),
        (PartlyDone("2 of 5 refused"), 3, "partly done: 2 of 5 refused\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.nc"), 2, "error: a.nc: No such file\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "o.sdf"),
            2,
            "error: o.sdf: No space left on device; free some space or choose another -o\n",
        ),
        (MemoryError(), 2, "error: out of memory: try a smaller --batch-size\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_a_line_and_a_status(
    command: Install, error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def tried() -> None:
        raise error

    command(tried)
    assert main(["try"]) == status
    assert capsys.readouterr().err == line


def test_debug_lets_the_traceback_through(command: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried() -> None:
        raise UserError("why")

    command(tried)
    monkeypatch.setenv("SCICONSIST_DEBUG", "1")
    with pytest.raises(UserError, match="why"):
        main(["try"])


def test_an_error_of_our_own_is_not_hidden(command: Install) -> None:
    def tried() -> None:
        raise ZeroDivisionError

    command(tried)
    with pytest.raises(ZeroDivisionError):
        main(["try"])


def test_main_leaves_the_sigterm_handler_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_a_command_and_leave_nothing_half_written(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    code = f"""
    import sys, time
    from pathlib import Path
    from sciconsist.cli import app
    from sciconsist.files import atomic_path
    def work() -> None:
        with atomic_path({str(tmp_path / "first")!r}) as path:
            path.write_text("finished")
        with atomic_path({str(tmp_path / "second")!r}) as path:
            path.write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    sys.modules["working"] = sys.modules["__main__"]
    app.COMMANDS = (("work", "working:work", "Work."),)
    sys.exit(app.main(["work"]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_a_closed_pipe_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sciconsist", "doctor"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err and "Exception" not in err
