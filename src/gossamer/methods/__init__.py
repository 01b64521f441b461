"""HOW training or calibration gets there: one paper, one file. Formats exported here are found by recipes and stages."""

from .abc_net import ABCNet as ABCNet
from .binary_connect import BinaryConnect as BinaryConnect
from .bireal import BiReal as BiReal
from .bnn import BNN as BNN
from .dorefa import DoReFa as DoReFa
from .lsq import LSQ as LSQ
from .qil import QIL as QIL
from .ttq import TTQ as TTQ
from .twn import TWN as TWN
from .xnor_net import XNOR as XNOR

__all__ = ["BNN", "LSQ", "QIL", "TTQ", "TWN", "XNOR", "ABCNet", "BiReal", "BinaryConnect", "DoReFa"]
