"""What a run tells: figures in a CSV file, and a bar on stderr where rich is installed and someone looks."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciconsist.files import atomic_path


class Progress:
    """A context manager; `update` after a while. The bar's length is the steps, or else the minutes."""

    def __init__(self, show: bool, steps: int | None, minutes: float | None, label: str = "training") -> None:
        self.steps, self.minutes, self.label = steps, minutes, label
        self.bar: Any = None
        if show and sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
                from rich.progress import Progress as Rich
            except ImportError:
                return
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Rich(*columns, console=Console(stderr=True))

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.steps or 60 * (self.minutes or 0))
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, step: int, seconds: float, row: Mapping[str, Any]) -> None:
        if self.bar is not None:
            text = f"{self.label}  step {step}" + (f"  loss {row['loss']:.4g}" if "loss" in row else "")
            self.bar.update(self.task, completed=step if self.steps else seconds, description=text)


class Log:
    """Rows of figures, in memory and, with a path, in a CSV file; its columns are those of the first row."""

    def __init__(self, path: Path | None, step: int = 0) -> None:
        """`step`: rows after it belong to a time that a resumed run lives again, and go."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] | None = None
        if path is not None and path.is_file() and step:
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames or []) or None
                rows = [{k: number(v) for k, v in row.items()} for row in reader if None not in row.values()]
            self.rows = [row for row in rows if row["step"] <= step]
        if path is not None:
            with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
                if self.columns:
                    csv.writer(file).writerows([self.columns, *([r[c] for c in self.columns] for r in self.rows)])

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))
        if self.path is None:
            return
        with self.path.open("a", newline="") as file:
            if self.columns is None:
                self.columns = list(row)
                csv.writer(file).writerow(self.columns)
            csv.writer(file).writerow([row.get(c, "") for c in self.columns])


def number(text: str) -> Any:
    """A CSV cell as what was written."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text
