"""One torch thread: the suite's networks are small, and threads that wait for each other cost more than they give.

torch says some warnings once a process, so that which test meets one would depend on the order: here it says them always.
"""

import torch

torch.set_num_threads(1)
torch.set_warn_always(True)
