"""One torch thread: the suite's networks are small, and threads that wait for each other cost more than they give."""

import torch

torch.set_num_threads(1)
