"""Training-step benchmark: faces per second of each net, by memory format, precision and compilation.

One step is forward, semi-hard mining and triplet loss, backward, AdamW, on random images of the net's own size.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from benchmarks.resources import limited_threads, quiet_profile
from benchmarks.tables import Table
from facenet.encoders.bundle import pick_device
from facenet.errors import ConfigError, choose
from facenet.export.speed import interleave, seconds_of
from facenet.losses.triplet import triplet_loss
from facenet.mining.online import mine
from facenet.models.build import build_model
from facenet.models.registry import NETS, TABLES
from facenet.models.summary import summarise, total
from facenet.options import Options as BaseOptions
from facenet.options import option
from facenet.training.optim import build_optimizer

BATCHES = {"nn1": 8, "nn2": 8, "nn3": 16, "nn4": 32, "nns1": 16, "nns2": 60, "small": 120}  # on a CPU, in minutes
GPU_BATCH = 128
MARGIN = 0.2
PATIENCE = 4.0  # times `seconds`: a step that takes longer is run once, and left out if bf16 is to blame


class Setting(NamedTuple):
    """How the same step is computed."""

    channels_last: bool = False
    bf16: bool = False
    compile: bool = False


SETTINGS = {
    "fp32": Setting(),
    "fp32_channels_last": Setting(channels_last=True),
    "bf16": Setting(bf16=True),
    "bf16_channels_last": Setting(channels_last=True, bf16=True),
    "compile": Setting(compile=True),
    "compile_channels_last": Setting(channels_last=True, compile=True),
}


class Step:
    """A net, its optimiser and a batch of random faces; each call is one training step."""

    def __init__(self, name: str, batch_size: int, setting: Setting, device: torch.device) -> None:
        torch.manual_seed(0)
        memory = torch.channels_last if setting.channels_last else torch.contiguous_format
        self.model = build_model(name, norm="batch").to(device).train()
        self.model = self.model.to(memory_format=memory)
        self.images = torch.randn(batch_size, 3, *self.model.input_size, device=device).contiguous(memory_format=memory)
        self.labels = (torch.arange(batch_size) // 4).to(device)
        self.optimizer = build_optimizer([self.model], name="adamw", lr=1e-4)
        self.embed: Callable[[Tensor], Tensor] = torch.compile(self.model.forward) if setting.compile else self.model
        self.bf16, self.device = setting.bf16, device

    def __call__(self) -> None:
        """Train on the batch once and wait for the device."""
        cast: AbstractContextManager[object] = nullcontext()
        if self.bf16:
            cast = torch.autocast(self.device.type, dtype=torch.bfloat16)
        with cast:
            embeddings = self.embed(self.images)  # (B, D)
        triplets = mine(embeddings.detach(), self.labels, margin=MARGIN)
        triplet_loss(embeddings, triplets, margin=MARGIN).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the training-step benchmark."""

    nets: tuple[str, ...] | None = option(None, help="nets by name; null is every net")
    batch_size: int | None = option(None, least=5, help="null is what suits the net: 8 to 120 on a CPU, 128 on a GPU")
    compile_nets: tuple[str, ...] = option(("small",), help="nets to try torch.compile with: most of a minute each")
    seconds: float = option(4.0, above=0, help="of each net and setting, after a warm-up step")
    repeats: int = option(5, least=1, help="timed steps, at most")
    threads: int | None = option(None, least=1, help="torch's threads; null is what it takes by itself")
    device: str = option("auto", help="auto, cpu, cuda")


def run(options: Options) -> dict[str, Any]:
    """Measure every net in every setting; returns plain numbers in nested objects.

    ``ceiling``: multiply-adds per second of a large matrix product, by type. ``nets.<name>``: `batch_size`, `macs` of
    one image, `settings.<setting>` with `faces_per_second` (median), `least`, `most`, `runs`, `of_ceiling` (three times
    the net's multiply-adds, against the ceiling) or `failed` (a reason), `best` (the fastest setting) and
    `outside_convolutions`, the share of a step's time that is not spent in convolutions, for fp32 and for the best
    setting. The settings of a net take turns.

    Raises:
        ConfigError: no net, or an unknown one.
    """
    names = list(TABLES) if options.nets is None else list(options.nets)
    for name in (*names, *options.compile_nets):
        choose(NETS, name, "benchmark.nets")
    if not names:
        raise ConfigError("benchmark.nets: expected a net, got an empty list")
    place = pick_device(options.device)
    with limited_threads(options.threads) as threads:
        result: dict[str, Any] = {"device": str(place), "threads": threads, "nets": {}}
        result["ceiling"] = {"fp32": ceiling(place, torch.float32), "bf16": ceiling(place, torch.bfloat16)}
        for name in names:
            entry = _net(name, options, place)
            for key, measured in entry["settings"].items():
                if "failed" not in measured:
                    most = max(result["ceiling"].values()) if SETTINGS[key].bf16 else result["ceiling"]["fp32"]
                    measured["of_ceiling"] = 3 * entry["macs"] * measured["faces_per_second"] / most
            result["nets"][name] = entry
        return result


def _net(name: str, options: Options, device: torch.device) -> dict[str, Any]:
    """Measure one net in every setting that can be had."""
    batch_size = options.batch_size or (GPU_BATCH if device.type == "cuda" else BATCHES.get(name, 16))
    compiled, seconds = name in options.compile_nets, options.seconds
    wanted = {key: setting for key, setting in SETTINGS.items() if compiled or not setting.compile}
    steps, settings = _steps(name, wanted, batch_size, seconds, device)
    for key, times in interleave(steps, seconds, options.repeats, patience=PATIENCE).items():
        faces = [batch_size / spent for spent in times]
        rates = {"faces_per_second": statistics.median(faces), "least": min(faces), "most": max(faces)}
        settings[key] = {**rates, "runs": len(faces)}
    best = max(steps, key=lambda key: settings[key]["faces_per_second"])
    shown = dict.fromkeys(key for key in ("fp32", "fp32_channels_last", best) if not SETTINGS[key].compile)
    outside = {key: outside_convolutions(steps[key], device) for key in shown}
    torch.compiler.reset()
    return {
        "batch_size": batch_size,
        "macs": int(total(summarise(steps["fp32"].model)).macs),
        "settings": {key: settings[key] for key in wanted},
        "best": best,
        "outside_convolutions": outside,
    }


def _steps(
    name: str, wanted: Mapping[str, Setting], batch_size: int, seconds: float, device: torch.device
) -> tuple[dict[str, Step], dict[str, Any]]:
    """Build the steps that can be run, and return why the others can not."""
    steps: dict[str, Step] = {}
    failed: dict[str, Any] = {}
    slower = plain = 0.0
    for key, setting in wanted.items():
        if setting.bf16:
            slower, plain = slower or bf16_slowdown(device), plain or seconds_of(steps["fp32"])
            if slower > 2 and slower * plain > PATIENCE * seconds:
                failed[key] = {"failed": f"left out: a bf16 convolution takes {slower:.0f}x as long here"}
                continue
        try:
            step = Step(name, batch_size, setting, device)
            if setting.compile:
                step()  # compiles
            steps[key] = step
        except Exception as error:
            if not setting.compile:
                raise
            failed[key] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"}
    return steps, failed


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the multiply-adds per second of a square matrix product, the best of a few."""
    side = 8192 if device.type == "cuda" else 1024
    left = torch.randn(side, side, device=device).to(dtype)  # a constant matrix heats a GPU less, and runs faster
    out = torch.empty_like(left)

    def product() -> None:
        torch.mm(left, left, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return float(side**3 / min(interleave({"": product}, 1.0, 5)[""]))


def bf16_slowdown(device: torch.device) -> float:
    """Return how many times as long as in float32 one convolution of a trainable size takes in bfloat16."""
    took = []
    for dtype in (torch.float32, torch.bfloat16):
        images, weight = torch.zeros(8, 64, 28, 28, dtype=dtype, device=device), torch.zeros(96, 64, 3, 3, dtype=dtype)
        weight = weight.to(device).requires_grad_()

        def step(images: Tensor = images, weight: Tensor = weight) -> None:
            torch.nn.functional.conv2d(images, weight, padding=1).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        took.append(min(interleave({"": step}, 1.0, 3)[""]))
    return took[1] / took[0]


def outside_convolutions(step: Callable[[], None], device: torch.device) -> float:
    """Return the share of one step's operator time that is not spent in convolutions, forward and backward."""
    cuda = device.type == "cuda"
    with quiet_profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        step()
    overall = inside = 0.0
    for event in profiler.key_averages():
        if event.device_type.name != "CPU":
            continue  # kernels count for the operator that started them
        time_spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        overall += time_spent
        inside += time_spent if "conv" in event.key else 0.0
    return 1 - inside / overall if overall else float("nan")


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for name, entry in result["nets"].items():
        plain = entry["settings"]["fp32"]["faces_per_second"]
        for key, value in entry["settings"].items():
            if "failed" in value:
                rows.append((name, entry["batch_size"], key, "-", "-", "-", value["failed"], "-", "-"))
                continue
            share = entry["outside_convolutions"].get(key)
            gain = f"{value['faces_per_second'] / plain:.2f}x{' best' if key == entry['best'] else ''}"
            outside = f"{share:.0%}" if share is not None else "-"
            rates = tuple(f"{value[field]:.1f}" for field in ("faces_per_second", "least", "most"))
            rows.append((name, entry["batch_size"], key, *rates, gain, outside, f"{value['of_ceiling']:.0%}"))
    header = ("net", "B", "setting", "faces/s (median)", "least", "most", "of fp32", "outside conv", "of ceiling")
    title = f"training step on {result['device']}, {result['threads']} threads"
    return [Table(title, header, rows)]
