"""Outputs: checked before the work starts, written under a temporary name, renamed when whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sciconsist.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk, a quota and a size limit answer


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write a file or a folder to; renames it to `path` on success.

    On any exception, Ctrl-C included, the temporary is removed and `path` stays as it was. After a kill -9 a
    hidden `.tmp-*` may be left, and `path` is still the old or the new output, never a part of one.
    The temporary name keeps the suffixes, for writers that choose a format by them. A `path` that is a device
    or a pipe (/dev/stdout) is yielded itself. Raises OSError, which names `path`, when writing fails.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing at its file
    device = target.exists() and not (target.is_file() or target.is_dir())
    # The tail of a long name keeps temporary names within the 255 bytes a name may have.
    temporary = target if device else target.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{target.name[-60:]}")
    try:
        yield temporary
        if not device:
            _replace(temporary, target)
    except OSError as error:
        full = error.errno in FULL and error.filename is None  # `write` does not say of which file
        if full or str(error.filename).startswith(os.fspath(temporary)):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        if not device:
            _remove(temporary)


def _replace(temporary: Path, target: Path) -> None:
    if temporary.is_file():
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes do
    if temporary.is_dir() and target.is_dir():
        # A folder cannot replace a folder that has files: move the old one away first.
        old = temporary.with_name(temporary.name + "-old")
        os.rename(target, old)
        os.rename(temporary, target)
        _remove(old)
    else:
        os.replace(temporary, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_output(
    path: str | os.PathLike[str],
    kind: Literal["file", "folder"] = "file",
    suffixes: tuple[str, ...] = (),
) -> Path:
    """The path, once it is sure that it can be written: a command calls this before the work starts.

    A file must lie in an existing folder; a folder is made if its parent exists. `suffixes` are the accepted
    ends of a file's name, any when empty. Raises UserError: the path, what was found and the cure.
    """
    if not os.fspath(path):
        raise UserError(f"the output {kind} has no name: give one with -o")
    path = Path(path)
    try:
        if kind == "folder":
            _check_folder(path)
        else:
            _check_file(path, suffixes)
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; choose another -o") from error
    return path


def _check_file(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.is_dir():
        example = path / f"out{suffixes[0] if suffixes else ''}"
        raise UserError(f"{path}: is a folder; -o expects a file, for example {example}")
    if suffixes and not path.name.lower().endswith(suffixes):
        raise UserError(f"{path}: the name ends with {path.suffix!r}; expected {' or '.join(suffixes)}")
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    _check_parent(path)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path}: is read-only; make it writable or choose another -o")
    _probe(path.parent)


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; -o expects a folder, choose another name")
    _check_parent(path)
    path.mkdir(exist_ok=True)
    _probe(path)


def _check_parent(path: Path) -> None:
    if path.parent.is_dir():
        return
    found = next(p for p in path.parents if p.exists())  # "." or "/" exists
    if found.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first: mkdir -p '{path.parent}'")
    raise UserError(f"{path}: {found} is a file, not a folder; choose another -o")


def _probe(folder: Path) -> None:
    """Writes nothing that stays: permission bits alone do not tell a read-only or full disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write here: {error.strerror}; choose another -o") from error
