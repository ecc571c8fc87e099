"""Inception-style embedding networks as row tables.

NN2 is table 2 of Schroff et al. 2015 (arXiv 1503.03832) at 224x224 and NN3 the same rows at 160x160. NN4 is NN2 at
96x96 without the 5x5 convolutions of rows 4e, 5a and 5b: the paper says without naming rows, and this reading alone
meets its figures. NNS1 and NNS2 are reconstructions: the paper gives their inputs and totals and no table. Few uses of
a weight for each image mean that the size falls fast and the weights lie where it is smallest; rows of NN2's kind were
put in that order, and their widths adjusted until both totals held within 2 %. `small` is ours, for two-core machines.
"""

from __future__ import annotations

from facenet.models.tables import Conv, Cost, NetTable, Norm, Pool, Row, Stage

_NN2_STEM: tuple[Stage, ...] = (
    Conv("conv1", 64, 7, 2),
    Pool("pool1"),
    Norm("norm1"),
    Row("inception_2", 0, 64, 192, 0, 0, "", 0),
    Norm("norm2"),
    Pool("pool2"),
    Row("inception_3a", 64, 96, 128, 16, 32, "max", 32),
    Row("inception_3b", 64, 96, 128, 32, 64, "L2", 64),
    Row("inception_3c", 0, 128, 256, 32, 64, "max", 0, stride=2),
    Row("inception_4a", 256, 96, 192, 32, 64, "L2", 128),
    Row("inception_4b", 224, 112, 224, 32, 64, "L2", 128),
    Row("inception_4c", 192, 128, 256, 32, 64, "L2", 128),
    Row("inception_4d", 160, 144, 288, 32, 64, "L2", 128),
)

NN2 = NetTable(
    (224, 224),
    (
        *_NN2_STEM,
        Row("inception_4e", 0, 160, 256, 64, 128, "max", 0, stride=2),
        Row("inception_5a", 384, 192, 384, 48, 128, "L2", 128),
        Row("inception_5b", 384, 192, 384, 48, 128, "max", 128),
    ),
    paper=Cost(7_448_256, 1596.5e6),  # printed as 7.5M and 1.6B
)

NN3 = NN2._replace(input_size=(160, 160), paper=Cost(7_448_256, 814.6e6))

NN4 = NetTable(
    (96, 96),
    (
        *_NN2_STEM,
        Row("inception_4e", 0, 160, 256, 0, 0, "max", 0, stride=2),
        Row("inception_5a", 384, 192, 384, 0, 0, "L2", 128),
        Row("inception_5b", 384, 192, 384, 0, 0, "max", 128),
    ),
    paper=Cost(6_600_384, 284.7e6),  # the paper prints 285M
)

# A reconstruction. Known are only "mini Inception", the input, the totals: 26 M weights at 220 M multiply-adds, eight
# and a half uses of a weight per image, where NN2's average is 214. So the spatial size must fall fast: NN2's stem at
# three eighths of its width takes the size to 21x21, then pairs of rows, the second of stride 2, halve it four times
# more, to 2x2, where a weight is used four times and two wide rows hold 20 M of them. Average pooling as in NN2. The
# widths from 3a on were then adjusted, in eighths, until both totals held.
NNS1 = NetTable(
    (165, 165),
    (
        Conv("conv1", 24, 7, 2),
        Pool("pool1"),
        Norm("norm1"),
        Row("inception_2", 0, 24, 72, 0, 0, "", 0),
        Norm("norm2"),
        Pool("pool2"),
        Row("inception_3a", 16, 40, 48, 16, 16, "max", 16),
        Row("inception_3b", 0, 64, 72, 16, 16, "max", 0, stride=2),
        Row("inception_4a", 80, 32, 88, 16, 32, "L2", 40),
        Row("inception_4b", 0, 72, 160, 16, 48, "max", 0, stride=2),
        Row("inception_5a", 224, 96, 256, 24, 64, "L2", 56),
        Row("inception_5b", 0, 96, 224, 24, 56, "max", 0, stride=2),
        Row("inception_6a", 448, 192, 448, 32, 160, "L2", 192),
        Row("inception_6b", 0, 320, 640, 80, 224, "max", 0, stride=2),
        Row("inception_7a", 896, 416, 1216, 96, 288, "L2", 384),
        Row("inception_7b", 960, 448, 1120, 128, 352, "max", 416),
    ),
    paper=Cost(26e6, 220e6),
)

# A reconstruction. Known are only "tiny Inception", the input and the totals: 4.3 M weights at 20 M multiply-adds, less
# than five uses of a weight per image, where NN4's rows use theirs 9 to 576 times. So the spatial size must fall fast
# (six halvings, to 3x2) and the weights must lie where it is smallest: one wide row at 3x2 and an embedding layer that
# reads all six positions. The widths of the other rows were then adjusted, in eighths, until both totals held.
NNS2 = NetTable(
    (140, 116),
    (
        Conv("conv1", 8, 3, 2),
        Pool("pool1"),
        Norm("norm1"),
        Row("inception_2", 0, 8, 24, 0, 0, "", 0),
        Norm("norm2"),
        Pool("pool2"),
        Row("inception_3a", 16, 24, 32, 8, 8, "max", 8),
        Row("inception_3b", 0, 16, 32, 8, 16, "max", 0, stride=2),
        Row("inception_4a", 24, 16, 32, 8, 16, "L2", 16),
        Row("inception_4b", 0, 16, 40, 8, 24, "max", 0, stride=2),
        Row("inception_5a", 56, 16, 88, 8, 16, "L2", 32),
        Row("inception_5b", 0, 40, 88, 8, 16, "max", 0, stride=2),
        Row("inception_6a", 2560, 80, 512, 32, 152, "L2", 384),
    ),
    head="flatten",
    paper=Cost(4.3e6, 20e6),
)

# Ours, for two cores and crops of 48 to 112 pixels: rows of one plain 3x3 convolution each, most of the work at 8x8
# and below, where the weights are; rows that keep their width add their input. Channels are multiples of 8; wider first
# rows would spend half the time in batch norm and ReLU.
SMALL = NetTable(
    (64, 64),
    (
        Conv("conv1", 24, 5, 2),
        Row("inception_2a", 0, 0, 48, 0, 0, "", 0, stride=2),
        Row("inception_2b", 0, 0, 48, 0, 0, "", 0, skip=True),
        Row("inception_3a", 0, 0, 128, 0, 0, "", 0, stride=2),
        Row("inception_3b", 0, 0, 128, 0, 0, "", 0, skip=True),
        Row("inception_3c", 0, 0, 128, 0, 0, "", 0, skip=True),
        Row("inception_4a", 0, 0, 256, 0, 0, "", 0, stride=2),
        Row("inception_4b", 0, 0, 256, 0, 0, "", 0, skip=True),
    ),
)

INCEPTION_NETS: dict[str, NetTable] = {
    "nn2": NN2,
    "nn3": NN3,
    "nn4": NN4,
    "nns1": NNS1,
    "nns2": NNS2,
    "small": SMALL,
}
