"""fit: the one training loop.

    for each epoch: shuffle, then for each batch
        loss(model(augmented inputs)) -> gradients -> (clip) -> optimizer step at the scheduled rate
    then validate, record, checkpoint

Everything random in epoch e comes from generators seeded by (seed, e), and the rate from the step number, so
a resumed run repeats nothing and ends with the same bits as an uninterrupted one (on one machine, with a
fixed number of threads). Under `accelerate launch` each process takes its share of every batch and shares are
weighted by their size: the result is that of one process up to rounding (batch norm aside, which sees its own
share).
Raises: TrainingError when the loss or a weight is no longer finite; ModelError and DataError when outputs or
labels do not fit; OptionError for options that cannot be right, or a checkpoint of another run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.data.split import Data
from gossamer.errors import DataError, OptionError, TrainingError
from gossamer.training.augment import find_augment
from gossamer.training.callbacks import Callback
from gossamer.training.checkpoint import Checkpoint, copy_state
from gossamer.training.evaluate import check_labels, check_logits, device_of, evaluate
from gossamer.training.history import Epoch, History
from gossamer.training.layout import Layout
from gossamer.training.options import MakeOptimizer, Options
from gossamer.training.progress import Bar
from gossamer.training.randomness import private_randomness, seed_everything

Loss = Callable[[Any, Tensor, Tensor, nn.Module], Tensor]  # (outputs, labels, inputs, model) -> scalar


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
    """Train the model in place and return the log; it ends in evaluation mode, on the device it came from.

    optimizer      "sgd", "adam", "adamw", or a function of the parameters; momentum also is Adam's beta1
    warmup         epochs in which the rate rises linearly
    loss           (outputs, labels, inputs, model) -> scalar; cross entropy when not given. `loss.watching(model)`, where
                   there is one, is a context around the whole run (see distillation.FeatureTargets)
    early_stop     epochs without a better validation accuracy after which to stop; whenever it is given, the
                   weights of the best epoch are put back at the end
    max_batches    so many batches an epoch (training and validation), for a trial
    mixed_precision "bf16": products of the network, of a teacher and of their gradients in bfloat16, weights and updates in
                   float32; "fp16" needs an accelerator; "no"
    parameters     which to train, or optimizer groups (each with its own "lr"); all when not given
    """
    options = Options(
        epochs=epochs, lr=lr, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size, schedule=schedule, warmup=warmup, augment=augment,
        label_smoothing=label_smoothing, seed=seed, early_stop=early_stop, max_grad_norm=max_grad_norm,
        max_batches=max_batches, mixed_precision=mixed_precision,
    )  # fmt: skip
    if not len(data.train):
        raise DataError(f"{data.name}: the train split is empty, expected at least one sample.")
    home = device_of(model)
    accelerator = options.make_accelerator(device)
    model.to(accelerator.device)
    wrapped, optim = accelerator.prepare(model, options.make_optimizer(model, parameters))
    try:
        run = _Run(model, wrapped, optim, accelerator, data, options, loss, list(callbacks))
        watching = getattr(loss, "watching", nullcontext)
        with private_randomness(), watching(model):
            run.train(checkpoint, progress=progress)
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        optim.zero_grad()
        model.to(home).eval()
    return run.history


class _Run:
    """What a run carries from epoch to epoch."""

    def __init__(
        self,
        model: nn.Module,
        wrapped: nn.Module,
        optim: Any,
        accelerator: Accelerator,
        data: Data,
        options: Options,
        loss: Loss | None,
        callbacks: list[Callback],
    ) -> None:
        self.model, self.wrapped, self.optim, self.accelerator = model, wrapped, optim, accelerator
        self.data, self.options, self.loss, self.callbacks = data, options, loss, callbacks
        self.world, self.rank = accelerator.num_processes, accelerator.process_index
        self.steps = options.steps(len(data.train))
        self.base_rates = [group["lr"] for group in optim.param_groups]
        self.augment = find_augment(options.augment)
        self.layout = Layout()
        self.history = History()
        self.best: dict[str, Any] | None = None
        self.finished = False

    def train(self, checkpoint: Checkpoint | None, *, progress: bool) -> None:
        """Every epoch that is not done yet."""
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            self.resume(state, checkpoint)
        main = self.accelerator.is_main_process
        with Bar(enabled=progress and main, epochs=self.options.epochs, steps=self.steps) as bar:
            while not self.finished and len(self.history.epochs) < self.options.epochs:
                self.epoch(len(self.history.epochs), bar)
                if checkpoint is not None and main:
                    checkpoint.save(self.state())
                self.accelerator.wait_for_everyone()
        if self.best is not None:
            self.model.load_state_dict(self.best)

    def epoch(self, epoch: int, bar: Bar) -> None:
        """One pass over the training split, validation, and the decision to go on."""
        began = time.perf_counter()
        order = np.random.default_rng([self.options.seed, epoch, 0]).permutation(len(self.data.train))
        changes = np.random.default_rng([self.options.seed, epoch, 1])
        seed_everything(self.options.seed, epoch, self.rank)
        for callback in self.callbacks:
            callback.on_epoch_start(epoch, self.model)
        self.wrapped.train()
        bar.epoch(epoch)
        total, size = 0.0, self.options.batch_size
        for step in range(self.steps):
            rows = order[step * size : (step + 1) * size]
            total += self.step(epoch, step, rows, changes) * len(rows)
            bar.step(total / (step * size + len(rows)))
        if self.world > 1:
            total = float(self.accelerator.reduce(torch.tensor(total, dtype=torch.float32), "sum"))
            for buffer in self.model.buffers():
                buffer.copy_(broadcast(buffer))  # batch-norm statistics of the first process count
        self.check_weights(epoch)
        score = evaluate(
            self.model, self.data.validation, self.data.preprocess, max_batches=self.options.max_batches
        )
        mean = total / min(len(order), self.steps * size)
        lr, took = float(self.optim.param_groups[0]["lr"]), time.perf_counter() - began
        self.history.epochs.append(Epoch(epoch + 1, lr, mean, score.loss, score.accuracy, took))
        bar.validated(score.accuracy)
        self.decide(epoch)

    def step(self, epoch: int, step: int, rows: np.ndarray, changes: np.random.Generator) -> float:
        """One optimizer step; returns this process's part of the mean loss of the batch."""
        inputs, labels, share = self.batch(rows, changes)
        for group, base in zip(self.optim.param_groups, self.base_rates, strict=True):
            group["lr"] = base * self.options.rate(epoch * self.steps + step, self.steps)
        try:
            value = self.measure(self.layout(inputs), labels, first=step == 0)
        except RuntimeError as error:
            if not self.layout.refused(error):
                raise
            value = self.measure(self.layout(inputs), labels, first=step == 0)
        number = float(value.detach())
        if not math.isfinite(number):
            raise TrainingError(
                f"training: epoch {epoch + 1}, step {step + 1} of {self.steps}: the loss is {number} at "
                f"learning rate "
                f"{self.optim.param_groups[0]['lr']:.3g}, expected a finite number. Lower lr, or set "
                f"max_grad_norm=1."
            )
        self.optim.zero_grad()
        # processes average their gradients, so a share is weighted by its size
        self.accelerator.backward(value if self.world == 1 else value * (share * self.world))
        if self.options.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
        self.optim.step()
        for callback in self.callbacks:
            callback.on_step_end(self.model, self.optim)
        return number * share

    def batch(self, rows: np.ndarray, changes: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        """(inputs, labels, this process's share of the batch); augmented before it is shared out."""
        raw, labels = self.data.train.take(rows)
        raw = self.augment(raw, changes, self.data.preprocess.color)
        share = 1.0
        if self.world > 1:
            mine = np.arange(self.rank, len(rows), self.world)
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

    def measure(self, inputs: Tensor, labels: Tensor, *, first: bool) -> Tensor:
        """The scalar to minimise."""
        outputs = self.wrapped(inputs)
        if self.loss is not None:
            with self.accelerator.autocast():  # a teacher computes as the network does
                value = self.loss(outputs, labels, inputs, self.model)
            if not isinstance(value, Tensor) or value.ndim:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise OptionError(f"training: the loss returned {got}, expected a tensor with one value.")
            return value
        logits = check_logits(outputs, labels, self.model)
        if first:
            for split in (self.data.train, self.data.validation):
                check_labels(
                    split.labels, logits.shape[1], place=f"{self.data.name} {split.name}", model=self.model
                )
        return F.cross_entropy(logits, labels, label_smoothing=self.options.label_smoothing)

    def check_weights(self, epoch: int) -> None:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f"training: {name} holds NaN or infinity after epoch {epoch + 1} at learning rate "
                    f"{self.optim.param_groups[0]['lr']:.3g}, expected finite weights. Lower lr, or set "
                    f"max_grad_norm=1."
                )

    def decide(self, epoch: int) -> None:
        """Ask the callbacks, keep the best weights, and say whether the run ends here."""
        wishes = [callback.on_epoch_end(epoch, self.model, self.history) for callback in self.callbacks]
        self.finished = any(wishes) or epoch + 1 == self.options.epochs
        best, patience = self.history.best, self.options.early_stop
        if patience is None or best is None:
            return
        if best.number == epoch + 1:
            self.best = copy_state(self.model.state_dict())
        self.finished = self.finished or epoch + 1 - best.number >= patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; random states follow from the seed and the number of epochs done."""
        return {
            "options": self.options.to_dict(),
            "data": self.data.fingerprint(),
            "finished": self.finished,
            "history": self.history.to_list(),
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optim.state_dict(),
            "channels_last": self.layout.channels_last,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }

    def resume(self, state: dict[str, Any], checkpoint: Checkpoint) -> None:
        """Take up a checkpointed run."""
        now = {**self.options.to_dict(), "data": self.data.fingerprint(), "callbacks": len(self.callbacks)}
        then = {**state["options"], "data": state["data"], "callbacks": len(state["callbacks"])}
        for key, value in now.items():
            if then.get(key) != value:
                raise OptionError(
                    f"checkpoint {checkpoint.path}: was made with {key} {then.get(key)!r}, but now {key} is "
                    f"{value!r}. "
                    f"Use the same options, or remove the file to start again."
                )
        try:
            self.model.load_state_dict(state["model"])
            self.optim.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise OptionError(
                f"checkpoint {checkpoint.path}: belongs to another model ({error}). Remove the file to start "
                f"again."
            ) from error
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        self.best, self.finished = state["best"], state["finished"]
        self.layout.channels_last = state["channels_last"]
        self.history = History.from_list(state["history"])
