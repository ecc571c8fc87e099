"""The published figures, each against the source's number."""

from __future__ import annotations

from facenet.report.paper import LFW_NEIGHBOURS, PAPER, PAPER_DEGRADED


def test_the_papers_tables_are_the_papers() -> None:
    assert [row[1] for row in PAPER["table3"].rows] == [0.879, 0.894, 0.883, 0.820, 0.824, 0.519]
    assert [row[2] for row in PAPER["table3"].rows] == [0.019, 0.016, 0.017, 0.023, 0.024, 0.029]
    assert [row[:2] for row in PAPER["table5"].rows] == [(64, 0.868), (128, 0.879), (256, 0.877), (512, 0.856)]
    assert [row[1] for row in PAPER["table6"].rows] == [0.763, 0.851, 0.851, 0.862]
    assert [value for _, value in PAPER_DEGRADED["jpeg"]] == [0.673, 0.814, 0.839, 0.855, 0.861, 0.865]
    assert [value for _, value in PAPER_DEGRADED["pixels"]] == [0.378, 0.795, 0.845, 0.857, 0.864]
    assert {category for category, *_ in LFW_NEIGHBOURS} == {
        "Image-Restricted, No Outside Data",
        "Unrestricted, Label-Free Outside Data",
    }
