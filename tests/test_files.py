"""Outputs are whole or absent, and a place that cannot be written is refused before work begins."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciconsist.errors import UserError
from sciconsist.files import atomic_path, check_output

ROOT = Path(__file__).resolve().parent.parent


@given(old=st.none() | st.binary(max_size=20), new=st.binary(max_size=20), cut=st.none() | st.integers(0, 20))
def test_atomic_path_is_old_or_new(
    tmp_path_factory: pytest.TempPathFactory, old: bytes | None, new: bytes, cut: int | None
) -> None:
    target = tmp_path_factory.mktemp("atomic") / "out.sdf.gz"
    if old is not None:
        target.write_bytes(old)
    try:
        with atomic_path(target) as path:
            assert path.parent == target.parent
            assert path.name.endswith(".sdf.gz")
            path.write_bytes(new if cut is None else new[:cut])
            if cut is not None:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert (target.read_bytes() if target.exists() else None) == old
    else:
        assert target.read_bytes() == new
    assert set(target.parent.iterdir()) <= {target}


def test_atomic_path_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    for text in ("one", "two"):
        with atomic_path(target) as path:
            path.mkdir()
            (path / "a").write_text(text)
        assert (target / "a").read_text() == text
    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        path.mkdir()
        (path / "b").write_text("half")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.rglob("*")] == ["out.zarr", "a"]


def test_atomic_path_keeps_links_and_devices(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_path(tmp_path / "link") as path:
        path.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    with atomic_path("/dev/null") as path:
        path.write_text("nothing")
    assert not Path("/dev/null").is_file()


def test_atomic_path_errors_name_the_path_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "out.nc"
    with pytest.raises(OSError, match="No such file") as caught, atomic_path(target) as path:
        path.open()  # not made yet
    assert caught.value.filename == str(target)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError) as caught, atomic_path(target):
        pass  # nothing written
    assert caught.value.filename == str(target)


def test_atomic_path_takes_the_longest_name(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 125 + ".sdf")
    with atomic_path(target) as path:
        path.write_text("")
    assert target.exists()


def test_kill_leaves_the_old_output_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    code = f"""
    import time
    from sciconsist.files import atomic_path
    with atomic_path({str(target)!r}) as path:
        path.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    assert target.read_text() == "old"
    assert all(p == target or p.name.startswith(".tmp-") for p in tmp_path.iterdir())


def test_check_output_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_output(tmp_path / "out.sdf", suffixes=(".sdf",)) == tmp_path / "out.sdf"
    assert check_output(tmp_path / "OUT.SDF", suffixes=(".sdf",)) == tmp_path / "OUT.SDF"
    assert not list(tmp_path.iterdir())
    assert check_output(tmp_path / "new", "folder").is_dir()
    assert check_output(tmp_path / "new", "folder").is_dir()
    assert check_output("/dev/null") == Path("/dev/null")
    monkeypatch.chdir(tmp_path)
    assert check_output("out.sdf") == Path("out.sdf")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("", "file", "has no name"),
        ("folder", "file", "folder: is a folder; -o expects a file"),
        ("missing/out.sdf", "file", "there is no folder .*missing; make it first: mkdir -p"),
        ("missing/out", "folder", "there is no folder .*missing"),
        ("file/out.sdf", "file", "file is a file, not a folder"),
        ("file/deep/out.sdf", "file", "file is a file, not a folder"),
        ("file", "folder", "file: is a file; -o expects a folder"),
        ("file/out", "folder", "file is a file, not a folder"),
        ("x" * 300, "file", "cannot be written|cannot write"),
        ("x" * 300, "folder", "cannot be written"),
        ("/proc/out.sdf", "file", "/proc: cannot write here"),
        ("/proc/out", "folder", "/proc/out: cannot be written"),
    ],
)
def test_check_output_refuses(tmp_path: Path, name: str, kind: str, message: str) -> None:
    if name.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=message) as caught:
        check_output(tmp_path / name if name else name, kind)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_check_output_refuses_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends with '\.pdb'; expected \.sdf or \.xyz"):
        check_output(tmp_path / "a.pdb", suffixes=(".sdf", ".xyz"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_check_output_refuses_a_read_only_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    (tmp_path / "out").chmod(0o400)
    with pytest.raises(UserError, match="read-only"):
        check_output(tmp_path / "out")
