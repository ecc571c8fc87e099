"""FaceNet: train, ship and upgrade face embeddings with the triplet loss.

Images become unit vectors, and everything after training works on those vectors. The public names below are imported
when they are first used: ``import facenet`` loads neither torch nor faiss nor torchvision.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facenet.clustering.clusters import cluster as cluster
    from facenet.compat.assessment import assess_upgrade as assess_upgrade
    from facenet.data.pairs import read_pairs as read_pairs
    from facenet.encoders.embedding import embed_folder as embed_folder
    from facenet.encoders.encoder import Encoder as Encoder
    from facenet.encoders.lookup import load as load
    from facenet.errors import ConfigError as ConfigError
    from facenet.errors import DataError as DataError
    from facenet.errors import FacenetError as FacenetError
    from facenet.evaluation.calibration import calibrate as calibrate
    from facenet.evaluation.photos import compare_photos as compare_photos
    from facenet.evaluation.verification import verify_embeddings as verify_embeddings
    from facenet.evaluation.verification import verify_pairs as verify_pairs
    from facenet.gallery.gallery import Gallery as Gallery
    from facenet.losses.registry import register_objective as register_objective
    from facenet.losses.triplet import triplet_loss as triplet_loss
    from facenet.mining.online import mine as mine
    from facenet.mining.rules import register_miner as register_miner
    from facenet.models.build import build_model as build_model
    from facenet.models.registry import register_net as register_net
    from facenet.service.client import connect as connect
    from facenet.training.options import TrainOptions as TrainOptions
    from facenet.training.run import train as train
    from facenet.types import EmbeddingSet as EmbeddingSet
    from facenet.types import Pairs as Pairs

__version__ = "0.1.0"
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports to its makers, unless this is set before it

_HOMES = {
    "ConfigError": "errors",
    "DataError": "errors",
    "EmbeddingSet": "types",
    "Encoder": "encoders.encoder",
    "FacenetError": "errors",
    "Gallery": "gallery.gallery",
    "Pairs": "types",
    "TrainOptions": "training.options",
    "assess_upgrade": "compat.assessment",
    "build_model": "models.build",
    "calibrate": "evaluation.calibration",
    "cluster": "clustering.clusters",
    "compare_photos": "evaluation.photos",
    "connect": "service.client",
    "embed_folder": "encoders.embedding",
    "load": "encoders.lookup",
    "mine": "mining.online",
    "read_pairs": "data.pairs",
    "register_miner": "mining.rules",
    "register_net": "models.registry",
    "register_objective": "losses.registry",
    "train": "training.run",
    "triplet_loss": "losses.triplet",
    "verify_embeddings": "evaluation.verification",
    "verify_pairs": "evaluation.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'facenet' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    value = getattr(import_module(f"facenet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]
