"""A progress bar on the terminal; silent when the output is not one."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """Epochs, steps, mean loss and validation accuracy on one line."""

    def __init__(self, *, enabled: bool, epochs: int, steps: int) -> None:
        self.epochs, self.accuracy = epochs, ""
        self.progress: Progress | None = None
        if enabled and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.progress.add_task("training", total=epochs * steps, note="")
            self.steps = steps

    def __enter__(self) -> Bar:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()

    def epoch(self, epoch: int) -> None:
        if self.progress:
            self.progress.update(
                self.task, completed=epoch * self.steps, description=f"epoch {epoch + 1} of {self.epochs}"
            )

    def step(self, loss: float) -> None:
        if self.progress:
            self.progress.update(self.task, advance=1, note=f"loss {loss:.4f}{self.accuracy}")

    def validated(self, accuracy: float) -> None:
        self.accuracy = f", validation {accuracy:.2%}"
