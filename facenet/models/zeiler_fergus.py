"""NN1: the Zeiler & Fergus net with 1x1 convolutions in between, table 1 of Schroff et al. 2015 (arXiv 1503.03832).

140,006,592 weights, of which fc1 holds 103 million, at 1.6 G multiply-adds; 22 layers deep. The paper's fc7128 is the
embedding layer here. Of maxout it says p=2: the larger of two linear maps.
"""

from __future__ import annotations

from facenet.models.tables import Conv, Cost, Full, NetTable, Norm, Pool

_K, _M = 1e3, 1e6

NN1 = NetTable(
    (220, 220),
    (
        Conv("conv1", 64, 7, 2),
        Pool("pool1"),
        Norm("rnorm1"),
        Conv("conv2a", 64, 1),
        Conv("conv2", 192, 3),
        Norm("rnorm2"),
        Pool("pool2"),
        Conv("conv3a", 192, 1),
        Conv("conv3", 384, 3),
        Pool("pool3"),
        Conv("conv4a", 384, 1),
        Conv("conv4", 256, 3),
        Conv("conv5a", 256, 1),
        Conv("conv5", 256, 3),
        Conv("conv6a", 256, 1),
        Conv("conv6", 256, 3),
        Pool("pool4"),
    ),
    head="flatten",  # the table's "concat"
    full=(Full("fc1", 32 * 128, 2), Full("fc2", 32 * 128, 2)),
    paper=Cost(140_006_592, 1605.9e6),  # printed as 140M and 1.6B
    printed={
        "conv1": Cost(9 * _K, 115 * _M),
        "conv2a": Cost(4 * _K, 13 * _M),
        "conv2": Cost(111 * _K, 335 * _M),
        "conv3a": Cost(37 * _K, 29 * _M),
        "conv3": Cost(664 * _K, 521 * _M),
        "conv4a": Cost(148 * _K, 29 * _M),
        "conv4": Cost(885 * _K, 173 * _M),
        "conv5a": Cost(66 * _K, 13 * _M),
        "conv5": Cost(590 * _K, 116 * _M),
        "conv6a": Cost(66 * _K, 13 * _M),
        "conv6": Cost(590 * _K, 116 * _M),
        "fc1": Cost(103 * _M, 103 * _M),
        "fc2": Cost(34 * _M, 34 * _M),
        "embedding": Cost(524 * _K, 0.5 * _M),
    },
)

ZEILER_FERGUS_NETS: dict[str, NetTable] = {"nn1": NN1}
