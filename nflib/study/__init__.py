"""What is remembered: cells, records, trained models, the runner, notebooks.

Notebooks build their cells with the names below.
"""

from nflib.study.cells import Cell
from nflib.study.recipes import base, generator, selector, settings

__all__ = ["Cell", "base", "generator", "selector", "settings"]
