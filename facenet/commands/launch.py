"""From the command line to a library call: Hydra and OmegaConf stop here."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from facenet.commands.arguments import explain, quoted
from facenet.commands.help import help_text
from facenet.commands.options import CommandOptions, command_module
from facenet.console import is_first_rank, one_line_errors, write_metrics
from facenet.errors import ConfigError, DataError, FacenetError, GateError
from facenet.interrupts import Interrupted, raise_on_signal
from facenet.options import build, check_key, required, to_dict

PACKAGE = Path(__file__).resolve().parents[1]
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
RUN_FOLDER = "FACENET_RUN_FOLDER"  # names rank 0's run folder to the ranks that Lightning starts
ONE_MACHINE = ("joblib", "submitit_local")  # launchers that run several points of a sweep beside each other
T = TypeVar("T", bound=CommandOptions)


def launch(name: str, run: Callable[[T, Path], dict[str, Any]]) -> None:
    """Compose ``conf/<name>.yaml`` with the command line and call ``run(options, run_folder)``.

    The class of the options is read off the annotation of `run`.

    What `run` returns becomes ``metrics.json`` in the run folder. Errors that a user can mend are one line on standard
    error: exit code 2 for options, 3 for data. A gate that does not pass exits with 4, and its metrics are written.
    SIGTERM and SIGINT end a command with 143 and 130. Of a distributed job only rank 0 writes into the run folder. A
    point of a sweep that fails does not end the others; the exit code is that of the first failure.
    """
    options = options_of(run)
    with one_line_errors():
        if any(argument in ("--help", "-h") for argument in sys.argv[1:]):
            group = next((argument for argument in sys.argv[1:] if argument[0] != "-" and "=" not in argument), None)
            with contextlib.suppress(BrokenPipeError):  # as of `--help | head`
                print(help_text(name, options, sys.modules[run.__module__].__doc__ or "", CONF, group), flush=True)
            return
        for argument in sys.argv[1:]:
            check_argument(options, argument)
    _compose(name, options, run)


def options_of(run: Callable[[T, Path], dict[str, Any]]) -> type[T]:
    """Return the class of a command's options."""
    return cast(type[T], get_type_hints(run)["options"])


def _compose(name: str, options: type[T], run: Callable[[T, Path], dict[str, Any]]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # composition errors are raised instead of printed
    _limit_threads(sys.argv)
    register(name, options)
    first, of_lightning = is_first_rank(), RUN_FOLDER in os.environ
    with one_line_errors():
        sys.argv[1:] = [forced(quoted(argument)) for argument in sys.argv[1:]]
        named = _named_folder(sys.argv)
        folder = None if first else _enter_as_rank(sys.argv, named)
    existed = named is not None and Path(named).exists()

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
    def main(cfg: Any) -> None:
        out = folder or Path(HydraConfig.get().runtime.output_dir)
        sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if sweep and "TORCHELASTIC_RUN_ID" in os.environ:
            raise ConfigError("a sweep starts the ranks of its jobs: run it without torchrun, with trainer.devices=N")
        try:
            with _point() if sweep else one_line_errors():
                run_job(name, options, run, cfg, out)
        except SystemExit:
            if first and not existed:
                _remove_untouched(out)
            raise

    try:
        with raise_on_signal(), one_line_errors():
            try:
                main()
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(explain(error, options)) from error
            except OSError as error:  # of the run folder, which Hydra makes, or of a file that no code expected
                if error.filename is None:
                    raise
                raise DataError(f"{error.filename}: {error.strerror}; give a place you may read and write") from error
    except Interrupted as stop:
        if first:
            print(f"error: {stop.text}", file=sys.stderr)
        raise SystemExit(stop.code if first or not of_lightning else 0) from None  # else Lightning would kill rank 0


def is_empty_log(path: Path) -> bool:
    """Whether a path is a log that Hydra opened and nobody wrote to."""
    return path.suffix == ".log" and path.is_file() and not path.stat().st_size


def _remove_untouched(out: Path) -> None:
    """Remove the run folder of a refused command, which holds Hydra's own files alone."""
    if out.is_dir() and all(path.name == ".hydra" or is_empty_log(path) for path in out.iterdir()):
        shutil.rmtree(out, ignore_errors=True)


def run_step(name: str, arguments: Sequence[str], out: Path) -> dict[str, Any]:
    """Run another command inside a running one, in this process; returns its metrics, which are also in its folder.

    Args:
        name: The command.
        arguments: Its arguments as on a command line, "KEY=VALUE".
        out: Its run folder.

    Raises:
        FacenetError: as :func:`run_job`.
    """
    from hydra import compose

    command = command_module(name)
    options = options_of(command.run)
    register(name, options)
    cfg = compose(name, [forced(quoted(argument)) for argument in arguments])
    out.mkdir(parents=True, exist_ok=True)
    return run_job(name, options, command.run, cfg, out)


def run_job(
    name: str, options: type[T], run: Callable[[T, Path], dict[str, Any]], cfg: Any, out: Path
) -> dict[str, Any]:
    """Build the options object of one composed configuration, run the command and write ``metrics.json``.

    Returns:
        What the command returned.

    Raises:
        ConfigError: options that are unknown, missing, of the wrong type or out of range.
        GateError: what the command raised, after its metrics were written.
    """
    from omegaconf import OmegaConf

    absent = sorted({*OmegaConf.missing_keys(cfg), *(key for key in required(options) if cfg.get(key) == "")})
    if absent:
        needed = " ".join(f"{key}=..." for key in absent)
        raise ConfigError(f"{name}: not given: {needed} (see the README for an example)")
    asked = build(options, OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    for plugin in asked.plugins:
        load_plugin(plugin)
    failed = None
    try:
        with _one_job(out):
            metrics = run(asked, out)
    except GateError as error:
        metrics, failed = dict(error.metrics), error
    if is_first_rank():
        print(f"metrics: {write_metrics(out, metrics)}")
    if failed is not None:
        raise failed
    return metrics


def given_options() -> list[str]:
    """Return the names of the options that the job was given; a choice of a group, as model=nn4, is model.name."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    keys = [override.lstrip("+~").partition("=")[0] for override in HydraConfig.get().overrides.task]
    return [f"{key}.name" if is_group(key) else key for key in keys]


def load_plugin(module: str) -> None:
    """Import an outside module, which may register nets, objectives and miners.

    Raises:
        ConfigError: the module can not be imported.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"plugins: {module!r} can not be imported ({error}); give a module on PYTHONPATH") from error
    finally:
        sys.path.remove(str(Path.cwd()))


def register(name: str, options: type[CommandOptions]) -> None:
    """Make the defaults of a command's options known to Hydra as ``schema/<name>``; an option without one is "???"."""
    from hydra.core.config_store import ConfigStore

    given = {item.name for item in dataclasses.fields(options)} - set(required(options))
    absent: Any = dict.fromkeys(required(options), "")
    defaults = to_dict(options(**absent))
    node = {key: value if key in given else "???" for key, value in defaults.items()}
    ConfigStore.instance().store(group="schema", name=name, node=node, package="_global_")


def check_argument(options: type[CommandOptions], argument: str) -> None:
    """Refuse an option that no field has, also with ``+``, before anything is composed.

    Raises:
        ConfigError: with the nearest known name.
    """
    key, assigned, value = argument.lstrip("+~").partition("=")
    if value == "null" and (CONF / key).is_dir():
        known = sorted(each.stem for each in (CONF / key).glob("*.yaml"))
        raise ConfigError(f"{argument}: name a choice; known: {', '.join(known)}")
    if assigned and not argument.startswith("-") and re.fullmatch(r"[\w.]+", key) and not is_group(key):
        check_key(options, key)


def is_group(key: str) -> bool:
    """Whether a key of the command line names a folder of ``conf/``, or is Hydra's own."""
    return key == "hydra" or key.startswith("hydra.") or "/" in key or (CONF / key).is_dir()


def forced(argument: str) -> str:
    """Return an argument that sets its key wherever it stands: Hydra's ``++``, which also adds names to mappings.

    A group of ``conf/`` is set as it is: ``+logger=csv`` too.
    """
    key, assigned, _ = argument.partition("=")
    if (CONF / key.lstrip("+")).is_dir():
        return argument.lstrip("+")
    if not assigned or argument.startswith(("-", "~")) or is_group(key.lstrip("+")) or "@" in key:
        return argument
    return f"++{argument.lstrip('+')}"


def _limit_threads(argv: list[str]) -> None:
    """Give the processes that a launcher starts on one machine a thread each."""
    chosen = [argument.partition("=")[2] for argument in argv if argument.startswith("hydra/launcher=")]
    if chosen and chosen[-1] in ONE_MACHINE:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextlib.contextmanager
def _point() -> Iterator[None]:
    """Print at once which point of a sweep failed; Hydra goes on with the others and raises the error at the end."""
    from hydra.core.hydra_config import HydraConfig

    try:
        yield
    except Exception as error:
        job = HydraConfig.get()
        point = " ".join(override.lstrip("+") for override in job.overrides.task)
        text = " ".join(f"{'' if isinstance(error, FacenetError) else type(error).__name__} {error}".split())
        print(f"point {job.job.num} failed ({point}): {text}; the others go on", file=sys.stderr, flush=True)
        raise


def _named_folder(argv: Sequence[str]) -> str | None:
    """Return the run folder that the arguments name, as Hydra reads it: the last one, without its quotation marks."""
    named = [argument.partition("=")[2] for argument in argv if argument.startswith("hydra.run.dir=")]
    return named[-1].strip("'\"") if named else None


def _enter_as_rank(argv: list[str], named: str | None) -> Path | None:
    """Send what Hydra writes for a rank other than 0 into a temporary folder; return the job's run folder.

    The run folder is named by the process that started this one, or by the arguments. None if Hydra makes its name up.

    Raises:
        ConfigError: a run is to be resumed, but its folder is known to rank 0 alone.
    """
    name = os.environ.get(RUN_FOLDER) or (named if named and "$" not in named else None)
    if name is None and any(argument.lstrip("+") == "resume=auto" for argument in argv):
        raise ConfigError("resume=auto: under torchrun or srun name the run folder, without $: hydra.run.dir=RUN")
    folder = tempfile.mkdtemp(prefix="facenet-rank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    argv += [f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    return Path(name) if name else None


@contextlib.contextmanager
def _one_job(out: Path) -> Iterator[None]:
    """Let the other ranks that Lightning starts run this job of a sweep alone, and the next job start its own.

    They are started with this process's arguments, which name the whole sweep. The environment that tells them their
    rank would otherwise stay, and the next job would wait for them.
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
