"""Names of the weights of known nets, in the files of those who trained them and here.

A family is a list of regular expressions with replacements, which are applied one after the other. What they leave are
the names of the modules in the tables of these nets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Rules = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """Files of one kind: which nets they hold, and how their names are read."""

    nets: tuple[str, ...]
    rules: Rules
    unused: str = r"$^"  # names that no embedding needs, such as a classifier's


_PARTS = ("conv", "norm", "activation")
_MBF_ROWS = {2: "down3", 3: "row3", 4: "down4", 5: "row4", 6: "down5", 7: "row5"}

FAMILIES = {
    "facenet-pytorch": Family(
        ("inception_resnet_v1",),
        (
            (r"\.bn\.", ".norm."),
            (r"\.conv2d\.", ".mix."),
            (r"\.branch(\d)\.(conv|norm)\.", r".branches.\1.0.\2."),
            (r"\.branch(\d)\.", r".branches.\1."),
            *(
                (f"^{theirs}\\.", f"stages.{ours}.")
                for theirs, ours in {
                    "conv2d_1a": "conv1",
                    "conv2d_2a": "conv2",
                    "conv2d_2b": "conv3",
                    "conv2d_3b": "conv4",
                    "conv2d_4a": "conv5",
                    "conv2d_4b": "conv6",
                    "repeat_1": "row_a",
                    "mixed_6a": "reduce_a",
                    "repeat_2": "row_b",
                    "mixed_7a": "reduce_b",
                    "repeat_3": "row_c",
                    "block8": "last",
                }.items()
            ),
            (r"^last_linear\.", "embedding.0."),
            (r"^last_bn\.", "embedding.1."),
        ),
        unused=r"^logits\.",
    ),
    "insightface": Family(
        ("iresnet18", "iresnet50", "iresnet100"),
        (
            (r"^(layer\d\.\d+)\.bn1\.", r"stages.\1.norm."),
            (r"^(layer\d\.\d+)\.conv1\.", r"stages.\1.first.conv."),
            (r"^(layer\d\.\d+)\.bn2\.", r"stages.\1.first.norm."),
            (r"^(layer\d\.\d+)\.prelu\.", r"stages.\1.first.activation."),
            (r"^(layer\d\.\d+)\.conv2\.", r"stages.\1.second.conv."),
            (r"^(layer\d\.\d+)\.bn3\.", r"stages.\1.second.norm."),
            (r"^(layer\d\.\d+)\.downsample\.0\.", r"stages.\1.beside.conv."),
            (r"^(layer\d\.\d+)\.downsample\.1\.", r"stages.\1.beside.norm."),
            (r"^conv1\.", "stages.stem.conv."),
            (r"^bn1\.", "stages.stem.norm."),
            (r"^prelu\.", "stages.stem.activation."),
            (r"^bn2\.", "stages.norm."),
            (r"^fc\.", "embedding.0."),
            (r"^features\.", "embedding.1."),
        ),
    ),
    "insightface mbf": Family(
        ("mbf",),
        (
            (r"^features\.layers\.0\.layers\.", "pool.block."),
            (r"^layers\.0\.layers\.", "stages.conv1."),
            (r"^layers\.1\.layers\.", "stages.conv2."),
            *((rf"^layers\.{number}\.layers\.", f"stages.{name}.") for number, name in _MBF_ROWS.items()),
            (r"^conv_sep\.layers\.", "stages.conv6."),
            (r"^(stages\.row\d\.\d)\.layers\.", r"\1."),
            *((rf"\.{number}\.layers\.", f".{name}.") for number, name in enumerate(("widen", "filter", "narrow"))),
            (r"^features\.layers\.2\.", "embedding.0."),
            (r"^features\.layers\.3\.", "embedding.1."),
            *(
                (rf"\.(conv\d|widen|filter|narrow|block)\.{number}\.", rf".\1.{name}.")
                for number, name in enumerate(_PARTS)
            ),
        ),
    ),
    "sface": Family(
        ("fmobilenet",),
        (
            (r"_(reshaped|dequantized)$", ""),
            (r"_relu_gamma$", ".activation.weight"),
            (r"_conv2d_weight$", ".conv.weight"),
            (r"_batchnorm", ".norm"),
            (r"_gamma$", ".weight"),
            (r"_beta$", ".bias"),
            (r"_moving_(mean|var)$", r".running_\1"),
            (r"^conv_1\.", "stages.conv1."),
            (r"^conv_(\d+)_dw\.", r"stages.conv\1.depthwise."),
            (r"^conv_(\d+)\.", r"stages.conv\1.pointwise."),
            (r"^bn1\.", "stages.norm."),
            (r"^pre_fc1_", "embedding.0."),
            (r"^fc1\.", "embedding.1."),
        ),
        unused=r"^scalar_op\d$",
    ),
}


def our_name(name: str, family: Family) -> str | None:
    """Return our name of a weight; None for one that no embedding needs."""
    if re.search(family.unused, name):
        return None
    for pattern, replacement in family.rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(weights: Mapping[str, T], family: Family) -> dict[str, T]:
    """Return weights under our names, without those that no embedding needs."""
    return {ours: value for name, value in weights.items() if (ours := our_name(name, family)) is not None}
