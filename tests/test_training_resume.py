"""A run that was interrupted ends with the same bits as one that was not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.data.custom import as_data
from gossamer.errors import GossamerError, OptionError
from gossamer.training import Callback, Checkpoint, fit
from training_halves import OPTIONS, data, network


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Interrupt(Callback):
    """Fails, or kills the process, at the given step; its count of steps is checkpointed."""

    def __init__(self, step, kill=False):
        self.step, self.kill, self.count = step, kill, 0
        self.trace = torch.zeros(3)

    def on_step_end(self, model, optimizer):
        self.count += 1
        self.trace += self.count
        if self.count == self.step:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt

    def state_dict(self):
        return {"count": self.count, "trace": self.trace, "nested": [1, (2.5, None, {"a": True})]}

    def load_state_dict(self, state):
        assert state["nested"] == [1, (2.5, None, {"a": True})]
        self.count, self.trace = state["count"], state["trace"]


def bits(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted():
    torch.set_num_threads(1)
    model = network()
    history = fit(model, data(), **OPTIONS, callbacks=[Interrupt(-1)])
    return bits(model), [(e.number, e.lr, e.train_loss, e.validation_loss) for e in history.epochs]


@pytest.mark.parametrize("step", [1, 6, 7, 17, 30])
def test_a_run_that_failed_at_any_step_resumes_to_the_same_bits(step, tmp_path, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        fit(network(), data(), **OPTIONS, callbacks=[Interrupt(step)], checkpoint=Checkpoint(tmp_path))
    model, counter = network(), Interrupt(-1)

    history = fit(model, data(), **OPTIONS, callbacks=[counter], checkpoint=Checkpoint(tmp_path))

    assert bits(model) == uninterrupted[0]
    assert [(e.number, e.lr, e.train_loss, e.validation_loss) for e in history.epochs] == uninterrupted[1]
    assert counter.count == 30
    assert (counter.trace == 465).all()


def test_a_process_that_was_killed_resumes_to_the_same_bits(tmp_path, uninterrupted):
    child = """
    import os, signal, torch
    from training_halves import OPTIONS, data, network
    torch.set_num_threads(1)
    from gossamer.training import Callback, Checkpoint, fit
    class Kill(Callback):
        count = 0
        def on_step_end(self, model, optimizer):
            self.count += 1
            if self.count == 15:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    code = textwrap.dedent(child)
    code += (
        f"\nfit(network(), data(), **OPTIONS, callbacks=[Kill()], checkpoint=Checkpoint({str(tmp_path)!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=120, capture_output=True, cwd=Path(__file__).parent
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    (tmp_path / "checkpoint.new").write_bytes(
        b"half of a checkpoint"
    )  # as a kill during the writing leaves it

    class Plain(Callback):
        def load_state_dict(self, state):
            assert state == {}

    model = network()
    history = fit(model, data(), **OPTIONS, callbacks=[Plain()], checkpoint=Checkpoint(tmp_path))

    assert bits(model) == uninterrupted[0]
    assert len(history.epochs) == 5


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    fit(network(), data(), **OPTIONS, callbacks=[Interrupt(-1)], checkpoint=Checkpoint(tmp_path))
    model = network()

    fit(model, data(), **OPTIONS, callbacks=[Interrupt(31)], checkpoint=Checkpoint(tmp_path))

    assert bits(model) == uninterrupted[0]


def test_sgd_with_momentum_resumes_to_the_same_bits(tmp_path):
    options = {"epochs": 3, "lr": 0.05, "batch_size": 20, "schedule": "one-cycle", "max_grad_norm": 0.5}
    whole, parts = network(), network()
    fit(whole, data(), **options)

    with pytest.raises(KeyboardInterrupt):
        fit(parts, data(), **options, callbacks=[Interrupt(12)], checkpoint=Checkpoint(tmp_path))
    again = network()
    fit(again, data(), **options, callbacks=[Interrupt(-1)], checkpoint=Checkpoint(tmp_path))

    assert bits(again) == bits(whole)


def test_a_checkpoint_of_other_options_data_or_model_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    fit(network(), data(), epochs=1, lr=0.1, checkpoint=checkpoint)

    with pytest.raises(OptionError, match=r"was made with lr 0\.1, but now lr is 0\.2.*remove the file"):
        fit(network(), data(), epochs=1, lr=0.2, checkpoint=checkpoint)
    other = as_data((data().test, data().test), name="halves")
    with pytest.raises(OptionError, match="was made with data"):
        fit(network(), other, epochs=1, lr=0.1, checkpoint=checkpoint)
    with pytest.raises(OptionError, match="belongs to another model"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)), data(), epochs=1, lr=0.1, checkpoint=checkpoint)
    checkpoint.clear()
    assert checkpoint.load() is None


def test_a_checkpoint_gives_back_exactly_what_it_was_given(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    state = {
        "tied": [base, base],
        "transposed": base.T,
        "half": base.half(),
        7: {"int key": (1, 2.0, -0.0, float("inf"), None, True, "text")},
        "third": 1 / 3,
        "empty": [torch.zeros(0), {}, []],
        "scalar": torch.tensor(3, dtype=torch.int64),
    }

    Checkpoint(tmp_path).save(state)
    back = Checkpoint(tmp_path).load()

    assert back[7] == state[7]
    assert back["third"] == state["third"]
    for one, two in [(back["tied"][1], base), (back["transposed"], base.T), (back["half"], base.half())]:
        assert one.dtype == two.dtype
        assert (one == two).all()
    assert back["empty"][0].shape == (0,)
    assert back["empty"][1:] == [{}, []]
    assert back["scalar"].item() == 3


def test_state_that_is_not_data_is_refused_with_its_place(tmp_path):
    with pytest.raises(OptionError, match=r"state\.callbacks\.0\.rng is Generator, expected tensors"):
        Checkpoint(tmp_path).save({"callbacks": [{"rng": np.random.default_rng(0)}]})


def test_a_broken_checkpoint_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"a": torch.ones(3)})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:40])

    with pytest.raises(GossamerError, match=r"checkpoint\.safetensors: cannot be read.*Remove the file"):
        checkpoint.load()


def test_a_full_disk_is_an_error_that_keeps_the_previous_checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"a": torch.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (4096, hard)
    )  # the system refuses to write more, as a full disk does
    try:
        with pytest.raises(
            GossamerError, match=r"could not be written.*previous checkpoint is intact.*Free space"
        ):
            checkpoint.save({"a": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (checkpoint.load()["a"] == torch.ones(3)).all()
    assert list(tmp_path.iterdir()) == [checkpoint.path]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(GossamerError, match=r"could not be written.*there is no previous one"):
        Checkpoint(tmp_path / "file" / "run").save({})
