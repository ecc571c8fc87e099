"""What an upgrade gains and costs, from the four cells: criterion, update gain, tax, flips, and the gate.

Source: Shen et al., CVPR 2020 (criterion and update gain; new* is the same recipe without a compatibility term).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facenet.compat.cells import METRICS, Cell, decisions
from facenet.compat.matching import SharedPairs
from facenet.compat.options import GateOptions
from facenet.errors import choose
from facenet.options import to_dict

Measures = Mapping[str, Mapping[str, float | None]]  # cell -> metric -> value


def upgrade_gains(measures: Measures) -> dict[str, dict[str, Any]]:
    """Return for each of `METRICS` the values of the cells, the criterion, the update gain and the tax.

    criterion = M(new,old) > M(old,old); gain = (M(new,old) - M(old,old)) / (M(new*,new*) - M(old,old));
    tax = M(new*,new*) - M(new,new). Without the cell ``reference`` the gain is taken against M(new,new) and the tax is
    None; `against` names the cell. If the divisor is not positive, the gain is None and `reason` says why.
    """
    return {metric: _gain({cell: row.get(metric) for cell, row in measures.items()}) for metric in METRICS}


def _gain(value: Mapping[str, float | None]) -> dict[str, Any]:
    best = "reference" if "reference" in value else "new_new"
    old, mixed, new, top = (value.get(cell) for cell in ("old_old", "new_old", "new_new", best))
    found: dict[str, Any] = {**value, "criterion": None, "gain": None, "against": best, "tax": None}
    if old is None or mixed is None or new is None or top is None:
        return {**found, "reason": "not measured in every cell"}
    found["criterion"] = mixed > old
    if best == "reference":
        found["tax"] = top - new
    if top <= old:
        name = "new*" if best == "reference" else "new"
        return {**found, "reason": f"{name} ({top:.4f}) is not better than old ({old:.4f}): there is nothing to gain"}
    return {**found, "gain": (mixed - old) / (top - old)}


def flips(cells: Mapping[str, Cell], pairs: SharedPairs) -> dict[str, dict[str, float]]:
    """Return negative and positive flips of the cells (new, old) and (new, new) against (old, old).

    negative = share of the scores that are right under (old, old) and wrong under the cell; positive = wrong under
    (old, old) and right under the cell. Each cell is judged at the thresholds of its own folds. Keys that end in
    `_at_old_threshold` keep those of (old, old), for users who choose no new threshold.
    positive - negative is the difference of the pooled shares of right scores.
    """
    before = cells["old_old"].right  # (P, 1)
    kept = cells["old_old"].verification.thresholds
    found = {}
    for name in ("new_old", "new_new"):
        cell = cells[name]
        for key, after in ((name, cell.right), (f"{name}_at_old_threshold", decisions(cell.sq_dist, pairs, kept))):
            found[key] = {"negative": float(np.mean(before & ~after)), "positive": float(np.mean(~before & after))}
    return found


def decide(
    gains: Mapping[str, Mapping[str, Any]], flipped: Mapping[str, Mapping[str, float]], gate: GateOptions
) -> dict[str, Any]:
    """Decide whether the new encoder may join the old one's gallery; `failed` lists what is not good enough.

    The gate passes if the update gain of `metric` is at least `min_gain`, and if the negative flips of (new, old) and
    of (new, new) are at most `max_negative_flips`: before and after the backfill. The gain is not defined if there is
    nothing to gain, as when a small net joins the gallery of a large one. M(new,old) >= M(old,old) - `max_fall` and
    `min_gain` <= 0 are then asked for instead.

    Raises:
        ConfigError: an unknown metric.
    """
    metric, min_gain, max_fall = gate.metric, gate.min_gain, gate.max_fall
    row = choose(dict(gains), metric, "gate.metric")
    failed = []
    if row["gain"] is not None:
        if row["gain"] < min_gain:
            failed.append(f"update gain {row['gain']:.4f} is below {min_gain:g}")
    elif row["old_old"] is None or row["new_old"] is None:
        failed.append(f"{metric} can not be measured")
    elif row["new_old"] < row["old_old"] - max_fall:
        allowed = f", by more than {max_fall:g}" if max_fall else ""
        failed.append(f"{metric} falls from {row['old_old']:.4f} to {row['new_old']:.4f}{allowed}")
    elif min_gain > 0:
        failed.append(f"the update gain is not defined: {row['reason']}")
    for name in ("new_old", "new_new"):
        share = flipped[name]["negative"]
        if share > gate.max_negative_flips:
            failed.append(
                f"negative flips of {name.replace('_', '-')}, {share:.4f}, are above {gate.max_negative_flips:g}"
            )
    return {"passed": not failed, **to_dict(gate), "failed": failed}
