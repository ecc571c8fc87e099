"""What several test files share: one thread, a folder of drawn faces, the LFW tree where there is one."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.pictures import write_tree, write_view2

settings.register_profile("suite", deadline=None, derandomize=True)  # the same cases in every run, on any machine
settings.load_profile("suite")
sys.dont_write_bytecode = False  # compile a module once, not in each process that the tests start
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy, torch and FAISS are loaded: one core for each test process


def pytest_collection_finish() -> None:
    """Leave what imports made out of garbage collection, which takes a tenth of the time of all tests otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    """The LFW tree: FACENET_LFW, or ../shared/data/lfw beside the repository; skips without either."""
    root = Path(os.environ.get("FACENET_LFW") or ROOT.parent / "shared" / "data" / "lfw")
    if not (root / "images").is_dir():
        pytest.skip(f"no LFW tree at {root}; set FACENET_LFW to the folder that holds images/ and protocol/")
    return root


@pytest.fixture(scope="session")
def face_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 identities with 4 images each."""
    return write_tree(tmp_path_factory.mktemp("faces"), 30, 4)


@pytest.fixture(scope="session")
def view2_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LFW tree of ten folds of 6 people with 3 images each."""
    return write_view2(tmp_path_factory.mktemp("view2"))


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """A photograph with one face that matplotlib brings: Grace Hopper, 512x600."""
    import matplotlib

    file = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    with Image.open(file) as picture:
        return picture.convert("RGB")
