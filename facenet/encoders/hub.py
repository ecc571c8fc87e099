"""Encoders on the Hugging Face Hub: ``hf:ORG/NAME``, or ``hf:ORG/NAME@REVISION``. Data is fetched, no code is run.

A token comes from ``HF_TOKEN`` or ``hf auth login``. ``HF_ENDPOINT`` names another hub. Files lie in the hub's cache.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facenet.encoders.bundle import WEIGHTS, load_bundle
from facenet.encoders.encoder import Encoder
from facenet.encoders.lookup import SCHEME
from facenet.encoders.model_card import NAME as CARD
from facenet.encoders.record import FILE
from facenet.errors import ConfigError, DataError, FacenetError, one_line
from facenet.foreign import install_command

ADDRESS = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
COMMIT = re.compile("[0-9a-f]{40}")


class Address(NamedTuple):
    """A repository, and a branch, tag or commit of it; None is its main branch."""

    repo: str
    revision: str | None


def parse(address: str) -> Address:
    """Return the parts of ``hf:ORG/NAME[@REVISION]``; raises ConfigError for any other text.

    >>> parse("hf:org/faces@v1")
    Address(repo='org/faces', revision='v1')
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise ConfigError(f"{address}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION")
    return Address(found[1], found[2])


def load_from_hub(address: str, *, device: str = "cpu") -> Encoder:
    """Fetch and read an encoder; its `training` keeps the address with the commit, which is pinned so.

    A full commit that was fetched before needs no connection.

    Raises:
        ConfigError: no such address, or without the package ``huggingface_hub``.
        DataError: it can not be fetched, or is damaged.
    """
    repo, revision = parse(address)
    package, given = _package(), _given()
    with _one_line_errors(address):
        pinned = revision if revision and COMMIT.fullmatch(revision) else None
        commit = pinned or str(package.HfApi(**given).model_info(repo, revision=revision).sha)
        if not COMMIT.fullmatch(commit):  # it becomes a part of paths
            raise DataError(f"{address}: the hub calls its commit {commit[:80]!r}, expected 40 hexadecimal digits")
        files = [package.hf_hub_download(repo, name, revision=commit, **given) for name in (FILE, WEIGHTS)]
    folder = Path(files[0]).parent
    try:
        encoder = load_bundle(folder, device=device)
    except DataError as error:
        raise DataError(f"{address}: {error}; or remove {folder}, and it is fetched again") from error
    encoder.training = {**encoder.training, "hub": f"{SCHEME}{repo}@{commit}"}
    return encoder


def push_to_hub(folder: str | Path, repo: str, *, private: bool, message: str, card: dict[str, str]) -> str:
    """Write an encoder's folder into a repository as one commit; returns the address with that commit.

    `card` holds what the head of the card says beside what it says already: license, license_name, license_link,
    base_model. The folder stays as it is.

    Raises:
        ConfigError: a name that is none of a repository, a licence that contradicts itself, or without the package.
        DataError: a damaged encoder, or one without a card; a public repository; or the hub can not be reached, or
            refuses.
    """
    parse(f"{SCHEME}{repo}")
    folder, package, given = Path(folder), _package(), _given()
    load_bundle(folder)
    text = _card(folder / CARD, repo, card)
    api = package.HfApi(**given)
    with _one_line_errors(f"{SCHEME}{repo}"):
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise DataError(f"{SCHEME}{repo}: it is there already, and public; pass private=false, or another repo")
        contents = {CARD: text.encode(), FILE: folder / FILE, WEIGHTS: folder / WEIGHTS}
        files = [package.CommitOperationAdd(name, content) for name, content in contents.items()]
        done = api.create_commit(repo, files, commit_message=message)
    return f"{SCHEME}{repo}@{done.oid}"


def _card(path: Path, repo: str, said: Mapping[str, str]) -> str:
    """Return the card of an encoder as the hub shows it: its head says more, its examples name the repository."""
    if not path.is_file():
        raise DataError(f"{path.parent}: no {CARD} in it, which facenet train writes; nothing is pushed without a card")
    try:
        card = _package().ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # of YAML, of its content, of its characters
        raise DataError(f"{path}: its head can not be read ({one_line(error)}); mend it") from error
    named = said.get("license", card.data.license) == "other"
    if "license" in said and not named:
        card.data.license_name = card.data.license_link = None
    for key, value in said.items():
        setattr(card.data, key, value)
    if bool(card.data.get("license_name")) != named:
        raise ConfigError("license_name: license=other has to have one, and no other license has")
    text = str(card).replace("From the folder that holds `encoder/`:", "With `pip install 'facenet-triplet[hub]'`:")
    for here in ('load("encoder', "encoder=encoder"):
        text = text.replace(here, f"{here.removesuffix('encoder')}{SCHEME}{repo}")
    return text


def _given() -> dict[str, Any]:
    """Return where the hub is, as its variable says now."""
    return {"endpoint": os.environ.get("HF_ENDPOINT", "").rstrip("/") or None}


def _package() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(f"hf: needs the package huggingface_hub; {install_command('hub')}") from error
    return huggingface_hub


@contextlib.contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(f"{what}: its owner lets in whom they choose; ask them, and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(f"{what}: no such repository, or a private one; set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{what}: no such branch, tag or commit") from error
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise DataError(f"{what}: the hub can not be reached, and it was not fetched before; try again") from error
        raise DataError(f"{what}: no encoder of facenet in it, which has {FILE} and {WEIGHTS}") from error
    except FacenetError:
        raise
    except Exception as error:  # of the hub, of the network, of the disk
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise DataError(f"{what}: the hub lets nobody in without a token that may do this; set HF_TOKEN") from error
        raise DataError(f"{what}: the hub can not be reached, or refuses ({one_line(error)}); try again") from error
