"""WHAT a weight is: formats, trees of them, and how they sit on a model. Exporting a class here enrols it everywhere."""

from .attach import attach as attach
from .attach import attached as attached
from .attach import baked as baked
from .attach import detach as detach
from .attach import locate as locate
from .attach import parts_of as parts_of
from .attach import plain_parameters as plain_parameters
from .attach import refine as refine
from .attach import restore as restore
from .attach import state as state
from .attach import stored as stored
from .base import WeightFormat as WeightFormat
from .base import from_dict as from_dict
from .binary import Binary as Binary
from .codebook import Codebook as Codebook
from .dense import Dense as Dense
from .masked_uniform import MaskedUniform as MaskedUniform
from .multi_binary import MultiBinary as MultiBinary
from .rescale import can_rescale as can_rescale
from .rescale import rescale as rescale
from .scaled_binary import ScaledBinary as ScaledBinary
from .sparse import Sparse as Sparse
from .ternary import Ternary as Ternary
from .uniform import Uniform as Uniform

__all__ = [
    "Binary",
    "Codebook",
    "Dense",
    "MaskedUniform",
    "MultiBinary",
    "ScaledBinary",
    "Sparse",
    "Ternary",
    "Uniform",
]
