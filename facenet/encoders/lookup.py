"""Whatever `encoder=` names: a folder, an exported ONNX file, a pretrained net by its name, or one on the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from facenet.encoders.encoder import Encoder
from facenet.encoders.onnx_file import load_onnx, unseal
from facenet.encoders.pretrained import PRETRAINED, load_pretrained
from facenet.encoders.record import FILE, apply_record, record_of, write_record
from facenet.errors import ConfigError, DataError, choose, nearest
from facenet.faces.alignment import Alignment
from facenet.faces.options import DETECTORS
from facenet.files import read_bytes, read_sealed

SCHEME = "hf:"  # begins the address of an encoder on the Hugging Face Hub


def load(
    name_or_path: str | Path, *, device: str = "auto", detector: str | None = None, threads: int | None = None
) -> Encoder:
    """Return an encoder: a folder, an exported ONNX file, a pretrained net by its name, or ``hf:ORG/NAME@REVISION``.

    A name goes before a folder of the same name; ``./sface`` is the folder. An ONNX encoder does not load torch. One
    from the hub keeps the commit it is of, see :mod:`facenet.encoders.hub`.

    Args:
        name_or_path: What to load.
        device: Of a torch network: "auto" (cuda, else mps, else cpu), "cpu", "cuda", ... ONNX runs on the CPU.
        detector: "none" if the images are faces already, cut as the encoder's alignment would cut them; None for the
            encoder's own.
        threads: Of onnxruntime; None is one a core.

    Raises:
        ConfigError: another detector than the encoder's, threads for a torch network, a device that can not be used, or
            an address on the hub without the package for it.
        DataError: nothing of that name, a damaged folder or file, or a package that is not installed.
    """
    found = _load(name_or_path, device, threads)
    align = found.preprocess.align
    if detector not in (None, align.detector if align else "none"):
        choose(DETECTORS, str(detector), "detector")
        if detector != "none":
            raise ConfigError(
                f"detector={detector}: {name_or_path} reads cropped faces; cut them out of photos with facenet align"
            )
        if align is not None:
            found.preprocess = replace(found.preprocess, align=replace(align, detector="none"))
    return found


def _load(source: str | Path, device: str, threads: int | None) -> Encoder:
    if str(source) in PRETRAINED:
        return load_pretrained(str(source), threads=threads)
    if str(source).startswith(SCHEME):
        return _load_torch(source, device, threads)
    if not Path(source).exists():
        names = ", ".join(sorted(PRETRAINED))
        hint = nearest(str(source), PRETRAINED)
        raise DataError(
            f"{source}: no such encoder folder{hint}; facenet train writes one into its run folder"
            f" (pretrained: {names})"
        )
    if Path(source).is_file():
        return load_onnx(source, threads=threads)
    record = Path(source) / FILE
    model = read_sealed(record).get("model") if record.is_file() else None
    name = model.get("name") if isinstance(model, dict) else None
    if isinstance(name, str) and name in PRETRAINED:
        return apply_record(load_pretrained(name, threads=threads), source)
    return _load_torch(source, device, threads)


def _load_torch(source: str | Path, device: str, threads: int | None) -> Encoder:
    """Return an encoder whose network is torch's, of a folder or of the hub."""
    if threads is not None:
        raise ConfigError(f"threads={threads}: {source} runs in torch; leave threads out, use torch.set_num_threads")
    if str(source).startswith(SCHEME):
        from facenet.encoders.hub import load_from_hub

        return load_from_hub(str(source), device=device)
    from facenet.encoders.bundle import load_bundle

    return load_bundle(source, device=device)


def read_record(encoder: str | Path | None) -> dict[str, Any] | None:
    """Return what an encoder says of itself, None for none; the network of a folder or file is not opened for it.

    Raises:
        DataError: as :func:`load`.
    """
    if encoder is None:
        return None
    path = Path(encoder)
    if str(encoder) in PRETRAINED or str(encoder).startswith(SCHEME) or not path.exists():
        return record_of(load(encoder))
    return unseal(read_bytes(path), path) if path.is_file() else read_sealed(path / FILE)


def write_calibration(encoder: Encoder, source: str | Path, out: str | Path) -> Path:
    """Keep what was calibrated for an encoder that :func:`load` found at `source`; returns the folder that has it.

    A folder keeps the calibration itself. For a pretrained net a folder ``out/encoder`` is made that names the net, for
    one of the hub a folder that holds its copy. Either can be used as ``encoder=``.

    Raises:
        ConfigError: an exported file, which is not changed.
    """
    check_calibration(source)
    align = encoder.preprocess.align
    if align is not None and align.detector == "none":  # these pictures were cut already; the encoder's photos are not
        found = replace(align, detector=Alignment().detector)
        encoder = replace(encoder, preprocess=replace(encoder.preprocess, align=found))
    fetched = str(source).startswith(SCHEME)
    if not fetched and str(source) not in PRETRAINED:
        write_record(encoder, source)
        return Path(source)
    folder = Path(out) / "encoder"
    if (folder / FILE).is_file() and read_sealed(folder / FILE).get("fingerprint") != encoder.fingerprint:
        raise ConfigError(f"{folder}: it holds another encoder; give another hydra.run.dir")
    if fetched:
        from facenet.encoders import model_card
        from facenet.encoders.bundle import save_bundle

        save_bundle(encoder, folder)
        model_card.write(folder, encoder, {}, {})
    else:
        write_record(encoder, folder)
    return folder


def check_calibration(source: str | Path) -> None:
    """Raise ConfigError if the encoder at `source` is a file, which can not keep what is calibrated for it."""
    if Path(source).is_file():
        raise ConfigError(
            f"{source}: an exported file, which is not changed; name the folder that it was made of, and export that"
            " again"
        )
