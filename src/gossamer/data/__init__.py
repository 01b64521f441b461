"""Data sets, without torch: `load_data(spec)` gives three splits, class names and the preprocessing."""

from gossamer.data.load import load_data as load_data
from gossamer.data.preprocess import Preprocess as Preprocess
from gossamer.data.speech import LogMel as LogMel
from gossamer.data.split import Data as Data
from gossamer.data.split import Split as Split

__all__ = ["Data", "LogMel", "Preprocess", "Split", "load_data"]
