"""Steps of a recipe. Exporting a class here enrols it in recipes, in the command line's help and in the tests."""

from .apply import apply as apply
from .base import Context as Context
from .base import Step as Step
from .freeze_norms import FreezeNorms as FreezeNorms
from .prune import Prune as Prune
from .quantize import Quantize as Quantize
from .round import Round as Round
from .share import Share as Share
from .train import Finetune as Finetune
from .train import Train as Train

__all__ = ["Finetune", "FreezeNorms", "Prune", "Quantize", "Round", "Share", "Train"]
