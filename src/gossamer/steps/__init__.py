"""Steps of a recipe. Exporting a class here enrols it in recipes, in the command line's help and in the tests."""

from .apply import apply as apply
from .base import Context as Context
from .base import Step as Step
from .calibrate import Calibrate as Calibrate
from .freeze_norms import FreezeNorms as FreezeNorms
from .protect import Protect as Protect
from .prune import Prune as Prune
from .quantize import Quantize as Quantize
from .quantize_aware import QuantizeAware as QuantizeAware
from .round import Round as Round
from .share import Share as Share
from .train import Finetune as Finetune
from .train import Train as Train

__all__ = [
    "Calibrate",
    "Finetune",
    "FreezeNorms",
    "Protect",
    "Prune",
    "Quantize",
    "QuantizeAware",
    "Round",
    "Share",
    "Train",
]
