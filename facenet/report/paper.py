"""The figures of the paper and of LFW's results page, each written down once.

The paper's were measured on the authors' private hold-out set, ours on other data. They stand beside ours to compare
shapes (which net, which dimension), never on one scale.
Source: Schroff, Kalenichenko, Philbin 2015, tables 3 to 6; the results page of Labeled Faces in the Wild.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from facenet.data.degradations import KINDS

PAPER_NOTE = (
    "The paper's figures (Schroff, Kalenichenko, Philbin 2015, tables 3 to 6) were measured on its private hold-out set"
    " after training on 100 to 260 million private images; ours on the data named here. Compare the order and the"
    " shape, not the numbers."
)


class PaperTable(NamedTuple):
    """A table of the paper: the setting it varies, and VAL at FAR 1e-3 with its standard error (None: not printed)."""

    title: str
    setting: str  # key of a run's `run` metrics
    label: str
    rows: tuple[tuple[Any, float, float | None], ...]  # setting, VAL, SEM; fractions


PAPER = {
    "table3": PaperTable(
        "The networks (table 3)",
        "model",
        "net",
        (
            ("nn1", 0.879, 0.019),
            ("nn2", 0.894, 0.016),
            ("nn3", 0.883, 0.017),
            ("nn4", 0.820, 0.023),
            ("nns1", 0.824, 0.024),
            ("nns2", 0.519, 0.029),
        ),
    ),
    "table5": PaperTable(
        "The dimension of the embedding (table 5)",
        "embedding_dim",
        "dimension",
        ((64, 0.868, 0.017), (128, 0.879, 0.019), (256, 0.877, 0.019), (512, 0.856, 0.020)),
    ),
    "table6": PaperTable(  # 2.6, 26, 52 and 260 million images
        "The amount of training data (table 6)",
        "train_share",
        "share of the training data",
        ((0.01, 0.763, None), (0.1, 0.851, None), (0.2, 0.851, None), (1.0, 0.862, None)),
    ),
}
# Table 4: VAL at FAR 1e-3 by JPEG quality, and by the number of pixels of the image.
PAPER_DEGRADED = {name: tuple(kind.paper.items()) for name, kind in KINDS.items() if kind.paper}
# LFW's own results page: category, method, mean accuracy over the folds of View 2, standard error where printed.
LFW_NEIGHBOURS = (
    ("Image-Restricted, No Outside Data", "Eigenfaces", 0.6002, None),
    ("Image-Restricted, No Outside Data", "V1-like/MKL", 0.7935, None),
    ("Image-Restricted, No Outside Data", "Fisher vector faces", 0.8747, 0.0149),
    ("Image-Restricted, No Outside Data", "Eigen-PEP", 0.8897, 0.0132),
    ("Image-Restricted, No Outside Data", "POP-PEP", 0.9110, 0.0147),
    ("Image-Restricted, No Outside Data", "MRF-Fusion-CSKDA", 0.9589, 0.0194),
    ("Unrestricted, Label-Free Outside Data", "ConvNet-RBM", 0.9175, None),
    ("Unrestricted, Label-Free Outside Data", "Fisher vector faces", 0.9303, None),
    ("Unrestricted, Label-Free Outside Data", "MDML-DCPs", 0.9558, None),
)
LFW_NOTE = (
    "The neighbours' figures are those of the benchmark's results page (Labeled Faces in the Wild, View 2, mean"
    " accuracy over ten folds). A net trained on LFW alone with identities belongs to the category Unrestricted, No"
    " Outside Data, in which that page lists no entry; the categories of the neighbours allow other things."
)
