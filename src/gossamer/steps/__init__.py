"""Steps of a recipe. Exporting a class here enrols it in recipes, in the command line's help and in the tests."""

from .apply import apply as apply
from .base import Context as Context
from .base import Step as Step
from .binarize import Binarize as Binarize
from .calibrate import Calibrate as Calibrate
from .correct_bias import CorrectBias as CorrectBias
from .equalize import Equalize as Equalize
from .freeze_norms import FreezeNorms as FreezeNorms
from .protect import Protect as Protect
from .prune import Prune as Prune
from .prune_channels import PruneChannels as PruneChannels
from .quantize import Quantize as Quantize
from .quantize_aware import QuantizeAware as QuantizeAware
from .round import Round as Round
from .round_weights import RoundWeights as RoundWeights
from .share import Share as Share
from .simulate_quantization import SimulateQuantization as SimulateQuantization
from .train import Finetune as Finetune
from .train import Train as Train
from .train_sparse import TrainSparse as TrainSparse

__all__ = [
    "Binarize",
    "Calibrate",
    "CorrectBias",
    "Equalize",
    "Finetune",
    "FreezeNorms",
    "Protect",
    "Prune",
    "PruneChannels",
    "Quantize",
    "QuantizeAware",
    "Round",
    "RoundWeights",
    "Share",
    "SimulateQuantization",
    "Train",
    "TrainSparse",
]
