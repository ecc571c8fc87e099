"""One process of a distributed job writes, whoever started it."""

from __future__ import annotations

import pytest

from facenet.jobs import is_first_rank


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),  # torchrun, the first of the second node
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),  # Lightning's own start on a second node
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "1"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, True),  # a shell inside an allocation
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # and ranks started from it
    ],
    ids=str,
)
def test_one_process_of_a_job_writes(given: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:

    for key in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    assert is_first_rank() is first
