"""HOW training or calibration gets there: one paper, one file. Formats exported here are found by recipes and stages."""

from .dorefa import DoReFa as DoReFa
from .lsq import LSQ as LSQ
from .qil import QIL as QIL

__all__ = ["LSQ", "QIL", "DoReFa"]
