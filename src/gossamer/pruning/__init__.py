"""WHICH weights go: criteria score, a selector chooses exactly, a schedule spreads the choice over rounds."""

from .channel_criteria import CHANNEL_CRITERIA as CHANNEL_CRITERIA
from .channel_criteria import score as score
from .criteria import CRITERIA as CRITERIA
from .evidence import Evidence as Evidence
from .schedule import sparsities as sparsities
from .select import by_fraction as by_fraction
from .select import by_quality as by_quality
from .select import globally as globally
from .sensitivity import densities_for as densities_for
from .sensitivity import scan as scan

__all__ = [
    "CHANNEL_CRITERIA",
    "CRITERIA",
    "Evidence",
    "by_fraction",
    "by_quality",
    "densities_for",
    "globally",
    "scan",
    "score",
    "sparsities",
]
