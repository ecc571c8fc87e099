"""Every file of conf/ composes against the schemas, and names only what the rooms know."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from facenet.data.augment import Augment
from facenet.data.datamodule import FaceDataModule
from facenet.data.sampler import IdentitySampler
from facenet.data.splits import KINDS, split_faces
from facenet.data.transforms import Preprocess
from facenet.losses import HEADS
from facenet.mining import FALLBACKS, MINERS, SELECTS, mine
from facenet.models import MODELS, NORMS, build_model
from facenet.module import LOSSES
from facenet.optim import OPTIMIZERS, SCHEDULES, build_optimizer

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
sys.path.insert(0, str(ROOT / "scripts"))
import schema  # noqa: E402

COMMANDS = sorted(schema.SCHEMAS)
GROUPS = sorted((d.name, f.stem) for d in CONF.iterdir() if d.is_dir() for f in d.glob("*.yaml"))


@pytest.fixture(autouse=True)
def hydra_conf() -> Iterator[None]:
    schema.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def composed(command: str, *overrides: str) -> dict[str, Any]:
    return OmegaConf.to_container(compose(command, list(overrides)), resolve=False)  # type: ignore[return-value]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str) -> None:
    config = composed(command)
    fields = {field.name for field in dataclasses.fields(schema.SCHEMAS[command])}
    assert set(config) == fields


@pytest.mark.parametrize(("group", "choice"), GROUPS, ids=[f"{g}-{c}" for g, c in GROUPS])
def test_every_choice_composes_and_is_known(group: str, choice: str) -> None:
    config = composed("benchmark" if group == "benchmark" else "train", f"{group}={choice}")
    if group == "benchmark":
        options = set(config["benchmark"]) - {"name"}
        assert options <= set(inspect.signature(importlib.import_module(f"facenet.benchmark.{choice}").run).parameters)
        return
    assert config["data"]["kind"] in KINDS
    assert config["model"]["name"] in MODELS
    assert config["model"]["norm"] in NORMS
    assert config["mining"]["miner"] in MINERS
    assert config["mining"]["select"] in SELECTS
    assert config["mining"]["fallback"] in FALLBACKS
    assert config["loss"]["name"] in LOSSES
    assert config["loss"]["head"] is None or config["loss"]["head"]["name"] in HEADS
    assert config["optim"]["name"] in OPTIMIZERS
    assert config["optim"]["schedule"] in SCHEDULES
    Augment(**{key: value for key, value in config["augment"].items() if key != "enabled"})


@pytest.mark.parametrize(
    ("group", "known"),
    [("model", MODELS), ("optim", OPTIMIZERS), ("loss", LOSSES), ("data", KINDS)],
    ids=["model", "optim", "loss", "data"],
)
def test_file_names_are_the_names_of_the_rooms(group: str, known: dict[str, object]) -> None:
    assert {choice for g, choice in GROUPS if g == group} == set(known)


@pytest.mark.parametrize(
    ("node", "target", "without"),
    [
        (schema.Model, build_model, {"name"}),
        (schema.Mining, mine, set()),
        (schema.Augment, Augment, {"enabled"}),
        (schema.Sampler, IdentitySampler, set()),
        (schema.Loader, FaceDataModule, set()),
        (schema.Optim, build_optimizer, {"schedule", "warmup_steps", "clip_norm", "accumulate"}),
        (schema.Preprocess, Preprocess, set()),
        (schema.Data, split_faces, {"crop"}),
    ],
)
def test_every_option_is_an_argument(node: type, target: Any, without: set[str]) -> None:
    accepted = set(inspect.signature(target).parameters)
    options = {field.name for field in dataclasses.fields(node)} - without
    assert options <= accepted, options - accepted


def test_the_margin_stands_in_one_place() -> None:
    text = [f for f in (CONF / "mining").glob("*.yaml") if "margin:" in f.read_text().split("#")[0]]
    assert not text
