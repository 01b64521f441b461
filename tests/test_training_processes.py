"""Two processes under `accelerate launch` train the network that one trains.

`--multi_gpu` is accelerate's name for "start the processes through torch"; without a GPU they meet over gloo.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from safetensors.torch import load_file

CODE = """
import sys
import numpy as np, torch
from safetensors.torch import save_file
from torch import nn
from accelerate import PartialState
from gossamer.data.custom import as_data
from gossamer.training import Checkpoint, fit
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.normal(size=(101, 6)).astype(np.float32)  # the last batch is one sample: a share of none
y = (x[:, 0] > x[:, 1]).astype(np.int64)
data = as_data({"train": (x, y), "validation": (x, y), "test": (x, y)}, name="pairs")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))
history = fit(
    model, data, epochs=3, lr=0.1, batch_size=20, schedule="cosine", max_grad_norm=1.0,
    checkpoint=Checkpoint(sys.argv[1] + ".run"),
)
fit(model, data, epochs=1, lr=0.01, batch_size=32)  # a second run in the same processes
state = PartialState()
assert state.num_processes == int(sys.argv[2]), state
if state.is_main_process:
    losses = torch.tensor([epoch.train_loss for epoch in history.epochs])
    save_file(model.state_dict() | {"losses": losses}, sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(tmp_path):
    (tmp_path / "train.py").write_text(CODE)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    for count, start in ((1, []), (2, launch)):
        arguments = [str(tmp_path / "train.py"), str(tmp_path / f"{count}.safetensors"), str(count)]
        ended = subprocess.run([sys.executable, *start, *arguments], capture_output=True, timeout=300)
        assert ended.returncode == 0, ended.stderr.decode()[-3000:]

    one, two = (load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    for name, value in one.items():
        assert (value - two[name]).abs().max() < 1e-5, name
    assert (tmp_path / "2.safetensors.run" / "checkpoint.safetensors").exists()
