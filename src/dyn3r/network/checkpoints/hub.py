"""Download of published weights to the user's cache: resumable, checked, at most once.

The cache is that of huggingface_hub (HF_HOME, HF_HUB_CACHE) and is shared with other programs.
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE have their usual effect. An interrupted download is resumed
in the same run and in a later one. A file gets its name in the cache after its checksum was
verified.
"""

from __future__ import annotations

import logging
import os
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dyn3r.errors import CheckpointError, InputError
from dyn3r.io.download import Expected, checked_fetch, file_name_problem
from dyn3r.network.checkpoints.catalogue import PublishedModel, published_model
from dyn3r.network.checkpoints.hub_errors import by_hand, clear_errors
from dyn3r.network.checkpoints.hub_files import (
    MAX_CONFIG_FILES,
    add_to_cache,
    check_content,
    largest_size,
    repository_folder,
    torch_folder,
)
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)


def cached_files(name: str) -> Path | None:
    """Return the cached folder of a published model (for `raft` its file); None if incomplete.

    Contacts no server. Raises CheckpointError for an unknown name.
    """
    model = published_model(name)
    if model.url:
        path = torch_folder() / model.files[0]
        return path if path.is_file() else None
    _check_environment()
    from huggingface_hub import try_to_load_from_cache

    needed = {"config.json" if file == "*.json" else file for file in model.files}
    found = [try_to_load_from_cache(model.repository, file) for file in sorted(needed)]
    if not all(isinstance(path, str) for path in found):
        return None
    return Path(str(found[0])).parent


def download(name: str, *, mirror: str | None = None, progress: Progress = no_progress) -> Path:
    """Download a published model, or check the cached one, and return its path.

    mirror: address of another server with the hub's protocol; the user's token is not sent to it.
    Every file is compared with the checksum in our table, where that is known, and with the one
    that the server states (SHA-256 for weights).
    Raises CheckpointError with one line that names a remedy: unknown name, no connection, offline
    flag, no access, missing file, damaged content, full disk. Raises InputError for an invalid
    address.
    """
    model = published_model(name)
    _check_environment()
    endpoint = None if mirror is None else _checked_address(mirror, "--from-mirror")
    if is_offline():
        if found := cached_files(name):
            return found
        raise CheckpointError(
            f"{name} is not on this machine and the offline flag (HF_HUB_OFFLINE) forbids its "
            f"download; unset the flag, or {by_hand(name)}"
        )
    with clear_errors(name, model, endpoint):
        if model.url:
            return _from_url(name, model, endpoint, progress)
        paths: list[Path] = []
        for file in _wanted_files(model, endpoint):
            config = paths[0] if paths else None
            paths.append(_from_hub(name, model, file, config, endpoint, progress))
    if len({path.parent for path in paths}) > 1:
        raise CheckpointError(f"{name} changed on the server meanwhile: try again")
    return paths[0].parent


def is_offline() -> bool:
    """Whether the environment forbids connections (HF_HUB_OFFLINE=1)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def log_licence_once(name: str) -> None:
    """Log the licence of a published model when it is first used on this machine."""
    if licence_is_news(name):
        logger.warning("%s is under %s", name, published_model(name).licence)


def licence_is_news(name: str) -> bool:
    """Whether the licence was not yet shown on this machine; it is marked as shown by the call."""
    from huggingface_hub import constants

    marker = Path(constants.HF_HOME) / "dyn3r" / "licence-told" / name
    if marker.exists():
        return False
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as problem:  # read-only cache: the licence is shown every time
        logger.debug("can't record that the licence was shown: %s", problem)
    return True


def size_on_disk(place: Path) -> int:
    """Return the size in bytes of a file, or of the files in a folder (links followed)."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _wanted_files(model: PublishedModel, endpoint: str | None) -> list[str]:
    """List the files to download, with `*.json` expanded; weights last."""
    if "*.json" not in model.files:
        return list(model.files)
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=_token(endpoint))
    names = [entry.rfilename for entry in api.model_info(model.repository).siblings or []]
    extra = sorted(n for n in names if re.fullmatch(r"\w[\w.-]*\.json", n) and n != "config.json")
    if len(extra) > MAX_CONFIG_FILES:
        raise CheckpointError(f"{model.repository} lists {len(extra)} files: it is no such model")
    return ["config.json", *extra, *(file for file in model.files if file != "*.json")]


def _from_hub(
    name: str, model: PublishedModel, file: str, config: Path | None, endpoint: str | None,
    progress: Progress,
) -> Path:  # fmt: skip
    """Download one file of a repository and return its path in the cache.

    config: the file that was downloaded first. The transfer is our own: that of the library can't
    resume after an interrupted run, and checks less.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, utils

    tools: Any = utils  # it does not declare its exports
    token = _token(endpoint)
    address = hf_hub_url(model.repository, file, endpoint=endpoint)
    facts = get_hf_file_metadata(address, token=token)
    for value in (facts.etag, facts.commit_hash):
        if problem := file_name_problem(value):  # they become names in the cache
            raise CheckpointError(
                f"{name}: {address} does not follow the hub's protocol: {problem}"
            )
    assert facts.etag is not None
    assert facts.commit_hash is not None
    folder = repository_folder(model)
    lock = folder.parent / ".locks" / folder.name / f"{facts.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with tools.WeakFileLock(lock):
        checked_fetch(
            hf_hub_url(model.repository, file, revision=facts.commit_hash, endpoint=endpoint),
            folder / "blobs" / facts.etag,
            Expected(
                largest_size(model, file),
                facts.size,
                [*_stated_checksum(facts.etag), model.sha256.get(file, "")],
                partial(check_content, model, file, config=config),
            ),
            label=f"{name}: {file}",
            headers=tools.build_hf_headers(token=token),
            progress=progress,
        )
        blob = folder / "blobs" / facts.etag
        return add_to_cache(folder, file, blob=blob, commit=facts.commit_hash)


def _from_url(name: str, model: PublishedModel, mirror: str | None, progress: Progress) -> Path:
    """Download a single file that is not on the hub to the cache of PyTorch."""
    from huggingface_hub import get_hf_file_metadata

    file = model.files[0]
    address = model.url if mirror is None else f"{mirror}/{file}"
    target = torch_folder() / file
    checked_fetch(
        address,
        target,
        Expected(
            largest_size(model, file),
            get_hf_file_metadata(address, token=False).size,
            [model.sha256.get(file, "")],
        ),
        label=f"{name}: {file}",
        progress=progress,
    )
    return target


def _stated_checksum(etag: str) -> list[str]:
    """Return the checksum in an etag: SHA-256, or git's SHA-1 of a small file; else nothing."""
    return [etag] if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) else []


def _token(endpoint: str | None) -> bool | None:
    """Choose the token: the user's for the hub (or HF_ENDPOINT), none for a mirror."""
    return None if endpoint is None else False


def _checked_address(address: str, given: str) -> str:
    """Return the address without a trailing slash. Raises InputError for an invalid one.

    given: the option or variable that it was given with.
    """
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        good = good and all(0 < len(label) < 64 for label in str(parts.hostname).split("."))
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"\s", address):
        raise InputError(f"{given} needs an address like https://hub.example.org: {address!r:.200}")
    return address.rstrip("/")


def _check_environment() -> None:
    """Check HF_ENDPOINT before huggingface_hub, which fails on import where it is no address."""
    if address := os.environ.get("HF_ENDPOINT"):
        _checked_address(address, "HF_ENDPOINT")
