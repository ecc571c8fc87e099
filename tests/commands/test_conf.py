"""Every file of conf/ composes into the options of its command, and names only what the library knows."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from facenet.commands.launch import forced, options_of, register
from facenet.commands.options import command_module
from facenet.console import flatten
from facenet.data.augment import Augment
from facenet.data.sources.kinds import SOURCES
from facenet.losses.heads import HEADS
from facenet.losses.registry import OBJECTIVES
from facenet.mining.rules import FALLBACKS, MINERS, SELECTS
from facenet.models.registry import NETS
from facenet.models.tables import NORMS
from facenet.options import build, describe, required
from facenet.training.build import check_options
from facenet.training.faces import build_preprocess
from facenet.training.optim import OPTIMIZERS, SCHEDULES
from facenet.training.options import TrainOptions
from tests.helpers import ROOT
from tests.helpers.commands import shared_store

CONF = ROOT / "conf"

COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "base")
OPTIONS = {name: options_of(command_module(name).run) for name in COMMANDS}
GROUPS = sorted((d.name, f.stem) for d in CONF.iterdir() if d.is_dir() for f in d.glob("*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def hydra_conf() -> Iterator[None]:
    for name, options in OPTIONS.items():
        register(name, options)
    with shared_store(), initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def composed(command: str, *overrides: str) -> dict[str, Any]:
    return OmegaConf.to_container(compose(command, list(overrides)), resolve=False)  # type: ignore[return-value]


def train_options(config: dict[str, Any]) -> TrainOptions:
    return build(TrainOptions, {key: value for key, value in config.items() if key != "plugins"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_into_the_object_of_its_defaults(command: str) -> None:
    config = composed(command)
    assert set(config) == {field.name for field in dataclasses.fields(OPTIONS[command])}
    absent = dict.fromkeys(required(OPTIONS[command]), "x")
    resolved: Any = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    made = build(OPTIONS[command], {**resolved, **absent})
    assert all(row.help for row in describe(OPTIONS[command])), "every option has its line of help"
    if command == "train":
        assert train_options(resolved) == TrainOptions()
    assert made.plugins == ()


def by_turns() -> list[list[str]]:
    """Choices of conf/ for `train`, one of each group at a time: every choice occurs, in as few commands as may be.

    An experiment and a scale choose of other groups, so each has a command of its own.
    """
    choices: dict[str, list[str]] = {}
    for group, choice in GROUPS:
        if group not in ("benchmark", "experiment", "scale"):
            choices.setdefault(group, []).append(choice)
    count = max(map(len, choices.values()))
    together = [[f"{group}={names[i % len(names)]}" for group, names in choices.items()] for i in range(count)]
    return [*together, *([f"{group}={choice}"] for group, choice in GROUPS if group in ("experiment", "scale"))]


@pytest.mark.parametrize("chosen", by_turns(), ids=" ".join)
def test_every_choice_composes_and_is_known(chosen: list[str]) -> None:
    config = composed("train", *chosen)
    assert config["data"]["kind"] in ("synthetic", *SOURCES)
    assert config["model"]["name"] in NETS
    assert config["model"]["norm"] in NORMS
    assert config["mining"]["miner"] in MINERS
    assert config["mining"]["select"] in SELECTS
    assert config["mining"]["fallback"] in FALLBACKS
    assert config["loss"]["name"] in OBJECTIVES
    assert config["loss"]["head"] is None or config["loss"]["head"]["name"] in HEADS
    assert config["optim"]["name"] in OPTIMIZERS
    assert config["optim"]["schedule"] in SCHEDULES
    Augment(**{key: value for key, value in config["augment"].items() if key != "enabled"})


@pytest.mark.slow  # nothing of the product
@pytest.mark.parametrize("choice", [choice for group, choice in GROUPS if group == "benchmark"])
def test_every_benchmark_composes(choice: str) -> None:
    given: Any = OmegaConf.to_container(OmegaConf.create(composed("benchmark", f"benchmark={choice}")), resolve=True)
    assert given["benchmark"].pop("name") == choice
    build(importlib.import_module(f"benchmarks.{choice}").Options, given["benchmark"])


@pytest.mark.parametrize(
    ("group", "known"),
    [("model", NETS), ("optim", OPTIMIZERS), ("loss", OBJECTIVES), ("data", ("synthetic", *SOURCES))],
    ids=["model", "optim", "loss", "data"],
)
def test_file_names_are_the_names_of_the_rooms(group: str, known: dict[str, object]) -> None:
    assert {choice for g, choice in GROUPS if g == group} == set(known)


def test_the_margin_stands_in_one_place() -> None:
    text = [f for f in (CONF / "mining").glob("*.yaml") if "margin:" in f.read_text().split("#")[0]]
    assert not text


TABLES = {
    "table3": {"model": ["nn1", "nn2", "nn3", "nn4", "nns1", "nns2"]},
    "table5": {"++model.embedding_dim": ["64", "128", "256", "512"], "++seed": ["0", "1", "2"]},
    "table6": {"++data.train_share": ["0.01", "0.1", "0.2", "1.0"], "++seed": ["0", "1", "2"]},
}
SCALES = [choice for group, choice in GROUPS if group == "scale"]


@functools.cache
def points(table: str, scale: str) -> list[tuple[dict[str, Any], str]]:
    """The configurations and run folders of points of a table: every value of every axis, or the last of each.

    Nets are scaled one by one, so all of them are composed at each scale. The other axes mean the same at every scale.
    """
    whole = compose("train", [f"experiment={table}", f"scale={scale}"], return_hydra_config=True)
    axes = {key: value.split(",") for key, value in whole.hydra.sweeper.params.items()}
    assert axes == TABLES[table]
    assert str(whole.hydra.mode) == "RunMode.MULTIRUN", "no -m is needed, and no single point runs in its place"
    found = []
    count = max(map(len, axes.values()))
    for number in range(0 if scale == "synthetic" or (table, scale) == ("table3", "lfw") else count - 1, count):
        line = [f"{key}={values[number % len(values)]}" for key, values in axes.items()]
        point = compose("train", [f"experiment={table}", f"scale={scale}", *line], return_hydra_config=True)
        folder = f"{point.hydra.sweep.dir}/{point.hydra.sweep.subdir}"
        content = OmegaConf.masked_copy(point, [key for key in point if key != "hydra"])
        found.append((OmegaConf.to_container(content, resolve=True), folder))
    return found  # type: ignore[return-value]


@pytest.mark.slow  # composes every point of three tables at three scales
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_point_of_a_table_composes(table: str, scale: str) -> None:
    found = points(table, scale)
    assert len({folder for _, folder in found}) == len(found), "each point has a run folder of its own"
    for config, folder in found:
        assert folder.startswith(f"runs/{table}_{scale}/")
        assert (config["table"], config["scale"]["name"], config["resume"]) == (table, scale, "auto")
        assert 1 < config["trainer"]["val_check_interval"] <= config["trainer"]["max_steps"]
        assert config["trainer"]["max_steps"] % config["trainer"]["val_check_interval"] == 0, "the end is looked at"
        assert config["optim"]["warmup_steps"] < config["trainer"]["max_steps"] / 3
        check_options(train_options({**config, "trainer": {**config["trainer"], "accelerator": "auto"}}))


@pytest.mark.slow  # composes the points of three tables
def test_axes_reach_what_they_name() -> None:
    assert [config["model"]["name"] for config, _ in points("table3", "synthetic")] == TABLES["table3"]["model"]
    dims = [config["model"]["embedding_dim"] for config, _ in points("table5", "synthetic")]
    assert dims == [64, 128, 256, 512]
    shares = [(config["data"]["train_share"], config["seed"]) for config, _ in points("table6", "synthetic")]
    assert shares == [(0.01, 0), (0.1, 1), (0.2, 2), (1.0, 0)]


@pytest.mark.parametrize(("given", "seeds"), [([], (0, 0)), (["seed=4"], (4, 4)), (["seed=4", "data.seed=1"], (4, 1))])
def test_the_faces_follow_the_seed_unless_they_have_their_own(given: list[str], seeds: tuple[int, int]) -> None:
    """Another net on the same faces, as an upgrade needs it, has another seed and the old one's faces."""
    config: Any = OmegaConf.to_container(compose("train", given), resolve=True)
    assert (config["seed"], config["data"]["seed"]) == seeds


@pytest.mark.slow  # composes the points of a table at two scales
@pytest.mark.parametrize("scale", ["synthetic", "lfw"])
def test_one_factor_scales_every_net_of_the_paper(scale: str) -> None:
    """Some factor takes each side to the scaled one by rounding alone, and the smallest side left is 64."""
    low, high, least = 0.0, 1.0, 1e9
    batches = set()
    for config, _ in points("table3", scale):
        sides, paper = build_preprocess(train_options(config)).size, NETS[config["model"]["name"]].input_size
        batches.add(config["sampler"]["batch_size"])
        for side, full in zip(sides, paper, strict=True):
            low, high, least = max(low, (side - 0.5) / full), min(high, (side + 0.5) / full), min(least, side)
    assert low <= high
    assert least >= 64
    assert len(batches) == 1, "one batch size for all"


@pytest.mark.slow  # composes a point of three tables
def test_the_papers_scale_is_the_papers() -> None:
    for table in TABLES:
        for config, _ in points(table, "paper"):
            assert build_preprocess(train_options(config)).size == NETS[config["model"]["name"]].input_size
            assert (config["sampler"]["batch_size"], config["sampler"]["faces_per_identity"]) == (1800, 40)
            assert config["large_batch"]["chunk_size"] == "auto"
            assert config["optim"]["name"] == "adagrad"


def test_view2_is_view1_but_for_its_files_and_its_fold() -> None:
    one, two = composed("train", "experiment=lfw_view1"), composed("train", "experiment=lfw_view2", "fold=3")
    assert two["data"].pop("people") == "people.txt"
    assert two["data"].pop("pairs") == "pairs.txt"
    del one["data"]["people"], one["data"]["pairs"]
    assert (two.pop("table"), two.pop("fold"), two.pop("resume")) == ("lfw_view2", 3, "auto")
    assert (one.pop("table"), one.pop("fold"), one.pop("resume")) == (None, None, None)
    assert one == two
    assert two["data"]["fold"] == "${fold}"


def test_view2_sweeps_over_its_ten_folds_and_trains_none_by_default() -> None:
    whole = compose("train", ["experiment=lfw_view2"], return_hydra_config=True)
    assert dict(whole.hydra.sweeper.params) == {"++fold": ",".join(map(str, range(1, 11)))}
    assert whole.fold == whole.data.fold == 0, "which is refused"
    point = compose("train", ["experiment=lfw_view2", "fold=7"], return_hydra_config=True)
    assert (point.hydra.sweep.dir, point.hydra.sweep.subdir) == ("runs/lfw_view2", "fold7_seed0")


@pytest.mark.parametrize(
    ("experiment", "typed", "runs"),
    [
        ("lfw_view2", "fold=1,2", 2),
        ("table3", "model=nn4", 1),
        ("table5", "seed=0", 4),
        ("table6", "data.train_share=0.1,1.0", 6),
    ],
)
def test_what_a_user_types_takes_the_place_of_what_is_swept(experiment: str, typed: str, runs: int) -> None:
    """As ``forced`` puts ``++`` before it, the axis has it too. Otherwise each run was there once for each value."""
    whole = compose("train", [f"experiment={experiment}"], return_hydra_config=True)
    axes = [f"{key}={values}" for key, values in whole.hydra.sweeper.params.items()]
    parsed = OverridesParser.create().parse_overrides([*axes, forced(typed)])
    ((*jobs,),) = BasicSweeper.split_arguments(parsed, None)
    assert len(jobs) == runs


def test_the_slurm_launcher_composes() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    line = ["experiment=table3", "hydra/launcher=slurm", "trainer.devices=4", "hydra.job.num=0", "hydra.job.id=0"]
    launcher = compose("train", line, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.tasks_per_node, launcher.gpus_per_node, launcher.nodes) == (4, 4, 1)
    assert launcher.submitit_folder == "runs/table3_synthetic/.submitit/%j"


def test_files_of_conf_hold_differences_alone() -> None:
    """A value that a file sets is another one than the field's default, but for the name of the choice."""
    defaults = {row.name: row.default for row in describe(TrainOptions)}
    for path in CONF.rglob("*.yaml"):
        group = path.parent.name
        if group not in ("optim", "model", "data", "augment", "sampler", "mining", "loss", "large_batch", "trainer"):
            continue
        values = flatten(OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {})  # type: ignore[arg-type]
        same = [name for name, value in values if defaults.get(f"{group}.{name}") == value]
        assert len(same) <= 1, f"{path}: {same} repeat the defaults"
