"""WHICH weights go: criteria score, a selector chooses exactly, a schedule spreads the choice over rounds."""

from .channel_criteria import CHANNEL_CRITERIA as CHANNEL_CRITERIA
from .channel_criteria import score as score
from .criteria import CRITERIA as CRITERIA
from .evidence import Evidence as Evidence
from .group import Group as Group
from .group import Member as Member
from .group import Wall as Wall
from .groups import Groups as Groups
from .groups import find_groups as find_groups
from .plan import Plan as Plan
from .schedule import sparsities as sparsities
from .select import by_fraction as by_fraction
from .select import by_quality as by_quality
from .select import globally as globally
from .sensitivity import densities_for as densities_for
from .sensitivity import scan as scan
from .surgery import cut as cut
from .surgery import masked as masked
from .trace import trace as trace

__all__ = [
    "CHANNEL_CRITERIA",
    "CRITERIA",
    "Evidence",
    "Group",
    "Groups",
    "Member",
    "Plan",
    "Wall",
    "by_fraction",
    "by_quality",
    "cut",
    "densities_for",
    "find_groups",
    "globally",
    "masked",
    "scan",
    "score",
    "sparsities",
    "trace",
]
