"""fit: the one training loop.

    for each epoch: shuffle, then for each batch
        loss(model(augmented inputs)) -> gradients -> (clip) -> optimizer step at the scheduled rate
    then validate, record, checkpoint

Everything random in epoch e comes from generators seeded by (seed, e), and the rate from the step number, so a resumed
run repeats nothing and ends with the same bits as an uninterrupted one (on one machine with a fixed number of threads).
Under `accelerate launch` each process takes its share of every batch and shares are weighted by their size: the result
is that of one process up to rounding (batch norm aside, which sees its own share).
Raises: TrainingError when the loss or a weight is no longer finite; ModelError and DataError when outputs or labels do
not fit; OptionError for options that cannot be right.
"""

from __future__ import annotations


import random

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

from gossamer.data.split import Data
from gossamer.errors import DataError, OptionError, TrainingError, nearest
from gossamer.training.augment import Augment, find_augment
from gossamer.training.callbacks import Callback
from gossamer.training.checkpoint import Checkpoint, copy_state
from gossamer.training.evaluate import check_labels, check_logits, evaluate
from gossamer.training.history import Epoch, History
from gossamer.training.progress import Bar
from gossamer.training.schedule import factor, find_schedule

Loss = Callable[[Any, Tensor, Tensor, nn.Module], Tensor]  # (outputs, labels, inputs, model) -> scalar
MakeOptimizer = Callable[[list[Any]], Optimizer]


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    lr: float,
    optimizer: str | MakeOptimizer = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    schedule: str = "constant",
    warmup: float = 0.0,
    augment: str | None = None,
    loss: Loss | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    early_stop: int | None = None,
    max_grad_norm: float | None = None,
    max_batches: int | None = None,
    progress: bool = True,
    mixed_precision: str = "no",
    parameters: Iterable[Any] | None = None,
    device: str | torch.device | None = None,
) -> History:
    """Train the model in place (it ends in evaluation mode, on the device it came from) and return the log.

    warmup: epochs of linear rise of the rate; momentum also is Adam's beta1; early_stop: epochs without a better
    validation accuracy after which to stop, the best epoch's weights are put back at the end in any case;
    max_batches: so many batches an epoch, for a trial; parameters: which to train (or optimizer groups).
    """
    options = {
        "epochs": epochs, "lr": lr, "optimizer": optimizer if isinstance(optimizer, str) else "custom",
        "momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size, "schedule": schedule,
        "warmup": warmup, "augment": augment or "none", "label_smoothing": label_smoothing, "seed": seed,
        "early_stop": early_stop, "max_grad_norm": max_grad_norm, "max_batches": max_batches,
        "mixed_precision": mixed_precision,
    }  # fmt: skip
    _check_options(options)
    change, rate = find_augment(augment), find_schedule(schedule)
    home = next((p.device for p in model.parameters()), torch.device("cpu"))
    accelerator = _accelerator(device, mixed_precision)
    model.to(accelerator.device)
    chosen = list(model.parameters() if parameters is None else parameters)
    chosen = [p for p in chosen if not isinstance(p, Tensor) or p.requires_grad]
    if not chosen:
        raise OptionError(
            "training: no parameter is left to train, expected at least one that requires a gradient."
        )
    steps = -(-len(data.train) // batch_size)
    steps = steps if max_batches is None else min(steps, max_batches)
    if not steps:
        raise DataError(f"{data.name}: the train split is empty, expected at least one sample.")
    wrapped, optim = accelerator.prepare(model, _optimizer(optimizer, chosen, lr, momentum, weight_decay))
    run = _Run(
        model,
        wrapped,
        optim,
        accelerator,
        data,
        change,
        loss,
        label_smoothing,
        max_grad_norm,
        list(callbacks),
    )
    bases = [group["lr"] for group in optim.param_groups]
    try:
        with _private_randomness():
            done = run.resume(checkpoint, options)
            with Bar(enabled=progress and accelerator.is_main_process, epochs=epochs, steps=steps) as bar:
                for epoch in range(done, 0 if run.finished else epochs):
                    run.epoch(
                        epoch, seed, batch_size, steps, max_batches, bar,
                        lambda step: factor(rate, step, total=epochs * steps, warmup=round(warmup * steps)), bases,
                    )  # fmt: skip
                    run.finished = run.end_epoch(epoch, early_stop) or epoch + 1 == epochs
                    if checkpoint is not None and accelerator.is_main_process:
                        checkpoint.save(run.state(options))
                    accelerator.wait_for_everyone()
                    if run.finished:
                        break
        if run.best is not None:
            model.load_state_dict(run.best)
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        optim.zero_grad()
        model.to(home).eval()
    return run.history


@dataclass
class _Run:
    """What a run carries from epoch to epoch."""

    model: nn.Module
    wrapped: nn.Module
    optim: Any
    accelerator: Accelerator
    data: Data
    augment: Augment
    loss: Loss | None
    label_smoothing: float
    max_grad_norm: float | None
    callbacks: list[Callback]

    def __post_init__(self) -> None:
        self.history = History()
        self.best: dict[str, Any] | None = None
        self.finished = False

    def epoch(
        self, epoch: int, seed: int, batch_size: int, steps: int, max_batches: int | None, bar: Bar,
        rate: Callable[[int], float], bases: list[float],
    ) -> None:  # fmt: skip
        """One pass over the training split, then validation."""
        began, world, rank = (
            time.perf_counter(),
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        order = np.random.default_rng([seed, epoch, 0]).permutation(len(self.data.train))
        changes = np.random.default_rng([seed, epoch, 1])
        _seed_everything(seed, epoch, rank)
        for callback in self.callbacks:
            callback.on_epoch_start(epoch, self.model)
        self.wrapped.train()
        bar.epoch(epoch)
        total, seen = 0.0, 0
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            inputs, labels, share = self.batch(rows, changes, world, rank)
            for group, base in zip(self.optim.param_groups, bases, strict=True):
                group["lr"] = base * rate(epoch * steps + step)
            outputs = self.wrapped(inputs)
            value = self.measure(outputs, labels, inputs, first=not seen)
            number = float(value.detach())
            if not np.isfinite(number):
                self.fail(epoch, step, steps, number, total / seen if seen else None)
            self.optim.zero_grad()
            self.accelerator.backward(value if world == 1 else value * (share * world))
            if self.max_grad_norm is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optim.step()
            for callback in self.callbacks:
                callback.on_step_end(self.model, self.optim)
            total, seen = total + number * len(rows) * share, seen + len(rows)
            bar.step(total / seen if world == 1 else number)
        if world > 1:
            total = float(self.accelerator.reduce(torch.tensor(total, dtype=torch.float32), "sum"))
            for buffer in self.model.buffers():
                buffer.copy_(broadcast(buffer))  # batch-norm statistics of the first process count
        self.check_weights(epoch)
        score = evaluate(self.model, self.data.validation, self.data.preprocess, max_batches=max_batches)
        lr = float(self.optim.param_groups[0]["lr"])
        took = time.perf_counter() - began
        self.history.epochs.append(Epoch(epoch + 1, lr, total / seen, score.loss, score.accuracy, took))
        bar.validated(score.accuracy)

    def batch(
        self, rows: np.ndarray, changes: np.random.Generator, world: int, rank: int
    ) -> tuple[Tensor, Tensor, float]:
        """(inputs, labels, this process's share of the batch); augmented before it is shared out."""
        raw, labels = self.data.train.take(rows)
        raw = self.augment(raw, changes, self.data.preprocess.color)
        share = 1.0
        if world > 1:
            mine = np.arange(rank, len(rows), world)
            share = len(mine) / len(rows)
            mine = (
                mine if len(mine) else np.array([0])
            )  # an empty share still has to take part, with weight 0
            raw, labels = raw[mine], labels[mine]
        device = self.accelerator.device
        return (
            torch.from_numpy(self.data.preprocess(raw)).to(device),
            torch.from_numpy(labels).to(device),
            share,
        )

    def measure(self, outputs: Any, labels: Tensor, inputs: Tensor, *, first: bool) -> Tensor:
        """The scalar to minimise."""
        if self.loss is not None:
            value = self.loss(outputs, labels, inputs, self.model)
            if not isinstance(value, Tensor) or value.ndim:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise OptionError(f"training: the loss returned {shape}, expected a tensor with one value.")
            return value
        logits = check_logits(outputs, labels, self.model)
        if first:
            for split in (self.data.train, self.data.validation):
                check_labels(
                    split.labels, logits.shape[1], place=f"{self.data.name} {split.name}", model=self.model
                )
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def end_epoch(self, epoch: int, early_stop: int | None) -> bool:
        """Ask the callbacks, keep the best weights; True when the run should end here."""
        wishes = [callback.on_epoch_end(epoch, self.model, self.history) for callback in self.callbacks]
        if early_stop is None:
            return any(wishes)
        best = self.history.best
        assert best is not None  # an epoch was just recorded
        if best.number == epoch + 1:
            self.best = copy_state(self.model.state_dict())
        return any(wishes) or epoch + 1 - best.number >= early_stop

    def state(self, options: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds; randomness is derived from the seed and the epoch, both here."""
        return {
            "options": options,
            "data": self.data.fingerprint(),
            "finished": self.finished,
            "history": self.history.to_list(),
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optim.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }

    def resume(self, checkpoint: Checkpoint | None, options: dict[str, Any]) -> int:
        """Take up the checkpointed run; returns how many epochs are done."""
        state = checkpoint.load() if checkpoint is not None else None
        if state is None or checkpoint is None:
            return 0
        now = {**options, "data": self.data.fingerprint(), "callbacks": len(self.callbacks)}
        then = {**state["options"], "data": state["data"], "callbacks": len(state["callbacks"])}
        for key, value in now.items():
            if then.get(key) != value:
                raise OptionError(
                    f"checkpoint {checkpoint.path}: was made with {key} {then.get(key)!r}, but now {key} is {value!r}. "
                    f"Use the same options, or remove the file to start again."
                )
        try:
            self.model.load_state_dict(state["model"])
            self.optim.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise OptionError(
                f"checkpoint {checkpoint.path}: belongs to another model ({error}). Remove the file to start again."
            ) from error
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        self.best, self.finished = state["best"], state["finished"]
        self.history = History.from_list(state["history"])
        return len(self.history.epochs)

    def fail(self, epoch: int, step: int, steps: int, value: float, before: float | None) -> None:
        lr = self.optim.param_groups[0]["lr"]
        raise TrainingError(
            f"training: epoch {epoch + 1}, step {step + 1} of {steps}: the loss is {value}"
            + (f" (mean so far {before:.4g})" if before is not None else "")
            + f" at learning rate {lr:.3g}, expected a finite number. Lower lr, or set max_grad_norm=1."
        )

    def check_weights(self, epoch: int) -> None:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f"training: {name} holds NaN or infinity after epoch {epoch + 1} at learning rate "
                    f"{self.optim.param_groups[0]['lr']:.3g}, expected finite weights. Lower lr, or set max_grad_norm=1."
                )


def _optimizer(
    kind: str | MakeOptimizer, parameters: list[Any], lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    if not isinstance(kind, str):
        return kind(parameters)
    if kind == "sgd":
        return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    betas = (momentum, 0.999)
    if kind == "adam":
        return Adam(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    if kind == "adamw":
        return AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    raise OptionError(f"optimizer: unknown name {kind!r}. {nearest(kind, ('sgd', 'adam', 'adamw'))}")


def _check_options(options: dict[str, Any]) -> None:
    """Ranges, said before any work."""
    for name, low in (("epochs", 0), ("batch_size", 1), ("max_batches", 1), ("early_stop", 1)):
        value = options[name]
        if value is not None and (not isinstance(value, int) or value < low):
            raise OptionError(f"training: {name} is {value!r}, expected a whole number of at least {low}.")
    for name, top in (
        ("momentum", 1.0),
        ("label_smoothing", 1.0),
        ("weight_decay", np.inf),
        ("warmup", np.inf),
    ):
        if not 0 <= options[name] < top:
            raise OptionError(
                f"training: {name} is {options[name]!r}, expected at least 0 and less than {top:g}."
            )
    for name in ("lr", "max_grad_norm"):
        if options[name] is not None and not 0 < options[name] < np.inf:
            raise OptionError(f"training: {name} is {options[name]!r}, expected a positive number.")
    if options["mixed_precision"] not in ("no", "fp16", "bf16"):
        raise OptionError(
            f"training: mixed_precision is {options['mixed_precision']!r}, expected no, fp16 or bf16."
        )


def _accelerator(device: str | torch.device | None, mixed_precision: str) -> Accelerator:
    """A fresh Accelerator; its state is global, so an earlier run with other options is forgotten first."""
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    cpu = device is not None and torch.device(device).type == "cpu"
    return Accelerator(cpu=cpu, mixed_precision=mixed_precision)


def _seed_everything(seed: int, epoch: int, rank: int) -> None:
    """Dropout draws from torch; a user's own transforms may draw from numpy or Python."""
    words = np.random.SeedSequence([seed, epoch, rank, 2]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))


@contextmanager
def _private_randomness() -> Iterator[None]:
    """Give the caller's random states back afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
