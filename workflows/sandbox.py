"""A child process for work that may crash, hang or eat all memory: one structure at a time, under a deadline.

`python -m sciconsist.workflows.sandbox` is the child: a line of JSON in, a line of JSON out. The parent kills it
when the deadline passes and starts another; a child whose parent is gone ends by itself.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sciconsist
from sciconsist.domains.crystals.screening import Candidate, Settings, screen_one
from sciconsist.errors import UserError

START_SECONDS = 300.0  # to import the calculator and read its weights


class Sandbox:
    """One child with its calculator loaded."""

    def __init__(self, settings: Settings) -> None:
        root = str(Path(sciconsist.__file__).resolve().parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sciconsist.workflows.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.ask(asdict(settings), START_SECONDS)
        if ready is None or "error" in ready:
            self.close()
            raise UserError(ready["error"] if ready else f"relaxer {settings.relaxer!r}: does not start")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # the child is gone

    def ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """The child's answer; None when it died. Raises TimeoutError when the deadline passed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            return None
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        return json.loads(line) if line else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Sandboxes:
    """As many children as are asked for at once, kept for the next structure; any thread may call `screen`."""

    def __init__(self, settings: Settings, deadline: float) -> None:
        self.settings, self.deadline = settings, deadline
        self.idle: list[Sandbox] = []
        self.all: list[Sandbox] = []
        self.closed = False

    def start(self) -> None:
        """Start one child now. Raises UserError when the calculator cannot be made."""
        self.idle.append(self._new())

    def screen(self, candidate: Candidate) -> dict[str, Any]:
        """`screen_one` in a child; a crash or a passed deadline is a record too."""
        begin = time.monotonic()
        try:
            child = self.idle.pop()
        except IndexError:
            child = self._new()
        try:
            record = child.ask(asdict(candidate), self.deadline)
            reason = f"the process died (status {child.process.wait()})" if record is None else ""
        except TimeoutError:
            record, reason = None, f"not done after the deadline of {self.deadline:g} s"
        if record is None:
            child.close()
            record = _lost(candidate, reason)
        else:
            self.idle.append(child)
        return record | {"seconds": round(time.monotonic() - begin, 3)}

    def close(self) -> None:
        self.closed = True
        for child in self.all:
            child.close()

    def _new(self) -> Sandbox:
        if self.closed:
            raise RuntimeError("the screen was stopped")
        child = Sandbox(self.settings)
        self.all.append(child)
        return child


def _lost(candidate: Candidate, reason: str) -> dict[str, Any]:
    from sciconsist.domains.crystals.screening import describe, structure_of_plain

    figures = describe(structure_of_plain(candidate.structure))
    return {"name": candidate.name, "status": "failed", "reason": reason, "stage": "relaxation", **figures}


# --- the child


def main() -> None:
    """Settings come first, then candidates; ends when the input ends or the parent is gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def answer(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    settings = Settings(**json.loads(sys.stdin.readline()))
    try:
        calc = _calculator(settings.relaxer)
    except UserError as error:
        return answer({"error": str(error)})
    answer({"ready": True})
    for line in sys.stdin:
        answer(screen_one(Candidate(**json.loads(line)), settings, calc))


def _calculator(relaxer: str) -> Any:
    from sciconsist.domains.crystals.relax import calculator

    if relaxer == "none":
        return None
    import torch

    torch.set_num_threads(1)
    return calculator(relaxer)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
