"""From the command line to a library call: Hydra and OmegaConf stop here."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from facenet.commands.schema import check_ranges, register, required
from facenet.console import one_line_errors, write_metrics
from facenet.errors import ConfigError, DataError, FacenetError, GateError, nearest
from facenet.interrupts import Interrupted, raise_on_signal

CONF = Path(__file__).resolve().parents[2] / "conf"
RUN_FOLDER = "FACENET_RUN_FOLDER"  # tells the ranks that Lightning starts where rank 0 writes
ONE_MACHINE = ("joblib", "submitit_local")  # launchers that run several points of a sweep beside each other
Run = Callable[[dict[str, Any], Path], dict[str, Any]]


def launch(name: str, run: Run) -> None:
    """Compose ``conf/<name>.yaml`` with the command line and call ``run(config, run_folder)``.

    `config` is a plain dict; what `run` returns becomes ``metrics.json`` in the run folder. Errors a user can mend
    are one line on standard error: exit 2 for the configuration, 3 for data, and 4 where a gate did not pass, whose
    metrics are written all the same. SIGTERM and SIGINT end it with 143 and 130. Of the processes of a distributed job
    only rank 0 writes into the run folder. A point of a sweep that fails says so at once and does not end the others;
    the exit code is that of the first which failed.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # composition errors reach us instead of being printed
    _for_workers(sys.argv)
    register()
    first, of_lightning = is_first(), RUN_FOLDER in os.environ
    with one_line_errors():
        sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    folder = None if first else _enter_as(sys.argv)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
    def main(cfg: Any) -> None:
        out = folder or Path(HydraConfig.get().runtime.output_dir)
        if HydraConfig.get().mode == RunMode.MULTIRUN and "TORCHELASTIC_RUN_ID" in os.environ:
            raise ConfigError("a sweep starts the ranks of its jobs: run it without torchrun, with trainer.devices=N")
        with _point() if HydraConfig.get().mode == RunMode.MULTIRUN else one_line_errors():
            missing = sorted({*OmegaConf.missing_keys(cfg), *(key for key in required(name) if cfg.get(key) == "")})
            if missing:
                needed = " ".join(f"{key}=..." for key in missing)
                raise ConfigError(f"scripts/{name}.py: not given: {needed} (see the README for an example)")
            config = OmegaConf.to_container(cfg, resolve=True)
            check_ranges(config)  # type: ignore[arg-type]
            failed = None
            try:
                with _one_job(out):
                    metrics = run(config, out)  # type: ignore[arg-type]
            except GateError as error:
                metrics, failed = dict(error.metrics), error
            if is_first():
                print(f"metrics: {write_metrics(out, metrics)}")
            if failed is not None:
                raise failed

    try:
        with raise_on_signal(), one_line_errors():
            try:
                main()
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(explain(error)) from error
            except OSError as error:  # of the run folder, which Hydra makes; or of a file that a room did not expect
                if error.filename is None:
                    raise
                raise DataError(f"{error.filename}: {error.strerror}; give a place you may read and write") from error
    except Interrupted as stop:
        if first:
            print(f"error: {stop.text}", file=sys.stderr)
        raise SystemExit(stop.code if first or not of_lightning else 0) from None  # else Lightning would kill rank 0


def quoted(argument: str) -> str:
    r"""Return an argument as Hydra reads it: a value that its grammar does not take (accents, parentheses) in quotes.

    >>> quoted("a=photo (1).jpg"), quoted("images=José"), quoted("seed=0,1"), quoted("query='José'")
    ("a='photo (1).jpg'", "images='José'", 'seed=0,1', "query='José'")

    Raises:
        ConfigError: bytes that are no UTF-8, which no configuration can hold.
    """
    if not argument.isprintable() and argument != argument.encode("utf-8", "replace").decode():
        shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ConfigError(f"{shown}: the argument is not UTF-8; rename what it names, or pass a link to it")
    key, _, value = argument.partition("=")
    if argument.startswith("-") or not value or value[0] in "'\"[{":
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    return argument


def is_first() -> bool:
    """Whether this process is on its own or rank 0 of a distributed job, and so the one that writes and reports."""
    given = os.environ
    if "RANK" in given:  # torchrun
        return int(given["RANK"]) == 0
    if "LOCAL_RANK" in given or "NODE_RANK" in given:  # started by Lightning, which trusts these before SLURM's
        return not int(given.get("LOCAL_RANK", 0)) and not int(given.get("NODE_RANK", 0))
    tasks = int(given.get("SLURM_NTASKS", 1)) if given.get("SLURM_JOB_NAME") not in ("bash", "interactive") else 1
    return tasks == 1 or int(given.get("SLURM_PROCID", 0)) == 0


def _for_workers(argv: list[str]) -> None:
    """Give the processes that a launcher starts one thread each where they share a machine."""
    chosen = [argument.partition("=")[2] for argument in argv if argument.startswith("hydra/launcher=")]
    if not chosen:
        return
    if chosen[-1] in ONE_MACHINE:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextlib.contextmanager
def _point() -> Iterator[None]:
    """Say at once which point of a sweep failed, and leave it to Hydra to go on and to raise the error at the end."""
    try:
        yield
    except Exception as error:
        job = HydraConfig.get()
        point = " ".join(job.overrides.task)
        text = " ".join(f"{'' if isinstance(error, FacenetError) else type(error).__name__} {error}".split())
        print(f"point {job.job.num} failed ({point}): {text}; the others go on", file=sys.stderr, flush=True)
        raise


def _enter_as(argv: list[str]) -> Path | None:
    """Send what Hydra writes for another rank than 0 into a folder that goes away; return the job's run folder.

    It is told by the process that started this one, or by the arguments; None where the run folder is named by date.
    """
    told = [argument.partition("=")[2] for argument in argv if argument.startswith("hydra.run.dir=")]
    folder = tempfile.mkdtemp(prefix="facenet-rank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    argv += [f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    name = os.environ.get(RUN_FOLDER) or (told[0] if told and "$" not in told[0] else None)
    return Path(name) if name else None


@contextlib.contextmanager
def _one_job(out: Path) -> Iterator[None]:
    """Make the other ranks that Lightning starts run this job of a sweep alone, and the next job start its own.

    They are started with this process's arguments, which name the whole sweep; and the environment that tells them
    their rank stays behind and would make the next job wait for them.
    """
    argv, environment = sys.argv, dict(os.environ)
    os.environ[RUN_FOLDER] = str(out.resolve())
    if (out / ".hydra" / "config.yaml").is_file():
        sys.argv = [argv[0], "-cp", str((out / ".hydra").resolve()), "-cn", "config"]
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


def explain(error: Exception) -> str:
    """Put a composition error into one line that names the key or choice and the nearest known one."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)  # type: ignore[arg-type]
    text = " ".join(" ".join(str(item) for item in chain).split())
    if isinstance(error, OverrideParseException):
        return f"argument {error.override!r}: not understood as KEY=VALUE; put the value in quotes: KEY=\"'VALUE'\""
    choice = re.search(
        r"Could not find '([^']+)/([^']+)' Available options in '[^']+': (.*?)(?: Config search|$)", text
    )
    if choice:
        group, name, known = choice.group(1), choice.group(2), choice.group(3).split()
        return f"{group}: unknown choice {name!r}{nearest(name, known)}; known: {', '.join(known)}"
    key = re.search(r"Key '([^']+)' (?:is )?not in (?:'([^']+)'|struct).*?full_key: (\S+)", text)
    if key:
        known = _known_keys(key.group(2) or "")
        hint = nearest(key.group(1), known)
        listed = f"; known: {', '.join(known)}" if known else ""
        return f"unknown option {key.group(3)!r}{hint}{listed}"
    return re.sub(r"\s*(reference_type|object_type|Set the environment variable).*", "", text)


def _known_keys(schema: str) -> list[str]:
    import dataclasses

    from facenet.commands import schema as schemas

    found = getattr(schemas, schema, None)
    return [item.name for item in dataclasses.fields(found)] if found else []
