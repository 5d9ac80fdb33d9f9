"""A study measured anew beside the stored one, cell by cell."""

from pathlib import Path

import numpy as np
import pandas as pd

from nflib.names import UserError
from nflib.study import notebooks
from nflib.study.records import Store

ONE = {"clean": 25.0, "perturbed": 40.0}  # points that a single cell may differ by, in all but a share FAR of the cells
MEAN = {"clean": 3.0, "perturbed": 6.0}  # points that cells may differ by on average, whatever the signs
FAR = 0.01


def gaps(profile: str, other: Path) -> pd.DataFrame:
    """Columns cell (in words) and, for clean and mean perturbed accuracy, here, there and the absolute gap, in points.

    A row for each cell of the profile's notebooks.  Raises UserError where one has no record, here or in the results folder
    `other`, or where an accuracy is no number; latencies must be there but may differ.
    """
    here, there, rows = Store(profile), Store(profile, other), []
    for cell in notebooks.all_cells(profile):
        if not here.has(cell) or not there.has(cell):
            missing = (there if here.has(cell) else here).root
            raise UserError(f"cell {cell.digest} ({cell.words}) has no record in {missing}")
        pair = [store.read(store.path(cell))["metrics"] for store in (here, there)]
        row = {"cell": cell.words}
        for name in ("clean", "perturbed"):
            if all(metrics.get(name) is not None and np.size(metrics[name]) for metrics in pair):
                a, b = (float(np.mean(metrics[name])) for metrics in pair)
                if not np.isfinite([a, b]).all():
                    raise UserError(f"cell {cell.digest} ({cell.words}): {name} is no number")
                row |= {name: a, f"{name}_there": b, f"{name}_gap": abs(b - a)}
        rows.append(row)
    if not rows:
        raise UserError(f"profile {profile!r} has no cells to compare")
    return pd.DataFrame(rows)


def compare(profile: str, other: Path) -> list[str]:
    """What to say of two measurements of one profile.  Raises UserError where they are farther apart than allowed.

    Another processor rounds differently, and training amplifies that in single cells, so that now and then a short one fails
    on one of the two; on one machine narrow cells are equal to the digit.
    """
    frame, said = gaps(profile, other), []
    for name in ("clean", "perturbed"):
        gap = frame[f"{name}_gap"].dropna()
        if (gap > ONE[name]).sum() > FAR * len(gap):
            far = frame.loc[gap.idxmax()]
            raise UserError(f"{far['cell']}: {name} {far[name]:.1f} here, {far[f'{name}_there']:.1f} there; allowed {ONE[name]:g}")
        if not gap.mean() <= MEAN[name]:
            raise UserError(f"{name} accuracies differ by {gap.mean():.1f} points on average; allowed {MEAN[name]:g}")
        said.append(f"{len(gap)} cells, {name}: {gap.mean():.2f} points apart on average, {gap.max():.2f} at most")
    return said
