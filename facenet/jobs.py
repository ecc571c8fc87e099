"""Which process of a distributed job this is, told from what torchrun, Lightning or SLURM set before it starts."""

from __future__ import annotations

import os


def is_first_rank() -> bool:
    """Whether this process is on its own or rank 0 of a distributed job, and so the one that writes and reports."""
    given = os.environ
    if "RANK" in given:  # torchrun
        return int(given["RANK"]) == 0
    if "LOCAL_RANK" in given or "NODE_RANK" in given:  # started by Lightning, which trusts these before SLURM's
        return not int(given.get("LOCAL_RANK", 0)) and not int(given.get("NODE_RANK", 0))
    tasks = int(given.get("SLURM_NTASKS", 1)) if given.get("SLURM_JOB_NAME") not in ("bash", "interactive") else 1
    return tasks == 1 or int(given.get("SLURM_PROCID", 0)) == 0
