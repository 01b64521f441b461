"""Training: one loop (`fit`), what measures it (`evaluate`), and what it may be given."""

from gossamer.training.callbacks import AfterStep as AfterStep
from gossamer.training.callbacks import Callback as Callback
from gossamer.training.checkpoint import Checkpoint as Checkpoint
from gossamer.training.clip_latent import ClipLatent as ClipLatent
from gossamer.training.evaluate import Evaluation as Evaluation
from gossamer.training.evaluate import evaluate as evaluate
from gossamer.training.evaluate import recalibrate_norms as recalibrate_norms
from gossamer.training.history import Epoch as Epoch
from gossamer.training.history import History as History
from gossamer.training.loop import fit as fit

__all__ = [
    "AfterStep", "Callback", "Checkpoint", "ClipLatent", "Epoch", "Evaluation", "History", "evaluate", "fit",
    "recalibrate_norms",
]  # fmt: skip
