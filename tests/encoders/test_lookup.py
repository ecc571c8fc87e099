"""Whatever `encoder=` names is found, and what is not is told with what there is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet.encoders import lookup as encoders
from facenet.encoders.bundle import save_bundle
from facenet.errors import ConfigError, DataError
from facenet.faces.alignment import Alignment
from facenet.files import read_sealed, write_sealed
from tests.helpers.encoders import make


def test_folders_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(make(), tmp_path / "sface")
    monkeypatch.chdir(tmp_path)
    assert encoders.load("sface").name == "sface"
    assert encoders.load("./sface").name == "small"
    with pytest.raises(DataError, match=r"no such encoder folder \(did you mean 'sface'\?\).*pretrained: sface"):
        encoders.load("sfac")


@pytest.mark.slow  # a detector and a pretrained net
def test_a_detector_can_be_left_out_but_not_exchanged(tmp_path: Path) -> None:
    found, plain = encoders.load("sface"), encoders.load("sface", detector="none")
    assert found.preprocess.align is not None
    assert plain.preprocess.align == replace(found.preprocess.align, detector="none")
    assert plain.fingerprint == found.fingerprint, "the images are the same, cut before"
    assert encoders.load("sface", detector="yunet").preprocess == found.preprocess
    save_bundle(make(), tmp_path / "e")
    assert encoders.load(tmp_path / "e", detector="none").preprocess.align is None
    with pytest.raises(ConfigError, match="reads cropped faces; cut them out of photos with facenet align"):
        encoders.load(tmp_path / "e", detector="yunet")
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        encoders.load("sface", detector="yunt")


@pytest.mark.slow  # embeds with a pretrained net; folders that name one are read below in every run
def test_thresholds_of_a_pretrained_net_are_kept_in_a_folder_that_names_it(tmp_path: Path) -> None:
    encoder = encoders.load("sface")
    encoder.thresholds = {0.01: 1.25}
    encoder.compatible_with = ["ab" * 32]
    folder = encoders.write_calibration(encoder, "sface", tmp_path)
    assert folder == tmp_path / "encoder"
    again = encoders.load(folder)
    assert (again.thresholds, again.compatible_with) == ({0.01: 1.25}, ["ab" * 32])
    assert again.fingerprint == encoder.fingerprint
    again.thresholds = {0.01: 1.5}
    assert encoders.write_calibration(again, folder, tmp_path / "other") == folder
    assert encoders.load(folder).threshold(0.01) == 1.5
    assert not (tmp_path / "other").exists()
    record = read_sealed(folder / "encoder.json")
    for change, said in (
        ({"fingerprint": "cd" * 32}, "not a record of sface"),
        ({"thresholds": {"0.01": "near"}}, "damaged"),
        ({"compatible_with": "ab"}, "list of fingerprints"),
    ):
        write_sealed(folder / "encoder.json", record | change)
        with pytest.raises(DataError, match=said):
            encoders.load(folder)


def test_a_bundle_keeps_its_own_thresholds(tmp_path: Path) -> None:
    save_bundle(make(), tmp_path / "e")
    encoder = encoders.load(tmp_path / "e")
    encoder.thresholds = {0.1: 0.5}
    assert encoders.write_calibration(encoder, tmp_path / "e", tmp_path / "run") == tmp_path / "e"
    assert encoders.load(tmp_path / "e").threshold(0.1) == 0.5


def test_calibrating_with_cut_pictures_leaves_the_alignment_for_photos(tmp_path: Path) -> None:
    save_bundle(make(align=Alignment(margin=1.2)), tmp_path / "e")
    cut = encoders.load(tmp_path / "e", detector="none")
    cut.thresholds = {0.1: 0.5}
    encoders.write_calibration(cut, tmp_path / "e", tmp_path / "run")
    again = encoders.load(tmp_path / "e")
    assert again.preprocess.align == Alignment(margin=1.2)
    assert again.threshold(0.1) == 0.5


def test_an_onnx_encoder_works_without_torch(portrait: Image.Image, tmp_path: Path) -> None:
    """In a process of its own: from the photo to the same vector, with resizing too."""
    portrait.save(tmp_path / "a.png")
    code = f"""if True:
        import sys
        import numpy as np
        from dataclasses import replace
        from facenet.encoders.lookup import load
        encoder = load("sface")
        first = encoder.embed([{str(tmp_path / "a.png")!r}])
        encoder.preprocess = replace(encoder.preprocess, align=None)
        np.save({str(tmp_path / "found.npy")!r}, np.concatenate([first, encoder.embed([{str(tmp_path / "a.png")!r}])]))
        sys.exit(bool({{"torch", "torchvision"}} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    encoder = encoders.load("sface")
    expected = [encoder.embed([tmp_path / "a.png"])]
    encoder.preprocess = replace(encoder.preprocess, align=None)
    np.testing.assert_array_equal(
        np.load(tmp_path / "found.npy"), np.concatenate([*expected, encoder.embed([tmp_path / "a.png"])])
    )


def test_threads_are_of_onnxruntime_alone(tmp_path: Path) -> None:
    assert encoders.load("sface", threads=1).name == "sface"
    save_bundle(make(), tmp_path)
    with pytest.raises(ConfigError, match=r"threads=1: .* runs in torch; leave threads out"):
        encoders.load(tmp_path, threads=1)
