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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dyn3r.errors import CheckpointError, DownloadError, InputError
from dyn3r.io.download import checked_fetch, file_name_problem, network_errors
from dyn3r.network.checkpoints.catalogue import PublishedModel, published_model
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)


def cached_files(name: str) -> Path | None:
    """Return the cached folder of a published model (for `raft` its file); None if incomplete.

    Contacts no server. Raises CheckpointError for an unknown name.
    """
    model = published_model(name)
    if model.url:
        path = _torch_folder() / model.files[0]
        return path if path.is_file() else None
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
    endpoint = None if mirror is None else _checked_address(mirror)
    if is_offline():
        if found := cached_files(name):
            return found
        raise CheckpointError(
            f"{name} is not on this machine and the offline flag (HF_HUB_OFFLINE) forbids its "
            f"download; unset the flag, or {by_hand(name)}"
        )
    with _clear_errors(name, model, endpoint):
        if model.url:
            return _from_url(name, model, endpoint, progress)
        files = _wanted_files(model, endpoint)
        paths = [_from_hub(name, model, file, endpoint, progress) for file in files]
    return paths[0].parent


def is_offline() -> bool:
    """Whether the environment forbids connections (HF_HUB_OFFLINE=1)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def by_hand(name: str) -> str:
    """Explain how to install a published model without a connection; a clause for messages."""
    model = published_model(name)
    if model.url:
        return f"copy {model.url} by hand to {_torch_folder() / model.files[0]}"
    if model.use == "geometry":
        return (
            f"copy {' and '.join(model.files)} of {model.repository} by hand to one folder and "
            "give it with --model FOLDER"
        )
    return f"copy {_repository_folder(model)} from a machine where it was downloaded"


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
    extra = sorted(n for n in names if n.endswith(".json") and "/" not in n and n != "config.json")
    return ["config.json", *extra, *(file for file in model.files if file != "*.json")]


def _from_hub(
    name: str, model: PublishedModel, file: str, endpoint: str | None, progress: Progress
) -> Path:
    """Download one file of a repository and return its path in the cache.

    Our own transfer writes the blob of the cache, because that of the library can't resume after an
    interrupted run. The library then finds the blob and completes its layout.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, utils

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
    folder = _repository_folder(model)
    lock = folder.parent / ".locks" / folder.name / f"{facts.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with tools.WeakFileLock(lock):
        checked_fetch(
            hf_hub_url(model.repository, file, revision=facts.commit_hash, endpoint=endpoint),
            folder / "blobs" / facts.etag,
            label=f"{name}: {file}",
            size=facts.size,
            checksums=[*_stated_checksum(facts.etag), model.sha256.get(file, "")],
            headers=tools.build_hf_headers(token=token),
            progress=progress,
        )
    return Path(hf_hub_download(model.repository, file, endpoint=endpoint, token=token))


def _from_url(name: str, model: PublishedModel, mirror: str | None, progress: Progress) -> Path:
    """Download a single file that is not on the hub to the cache of PyTorch."""
    from huggingface_hub import get_hf_file_metadata

    file = model.files[0]
    address = model.url if mirror is None else f"{mirror}/{file}"
    target = _torch_folder() / file
    checked_fetch(
        address,
        target,
        label=f"{name}: {file}",
        size=get_hf_file_metadata(address, token=False).size,
        checksums=[model.sha256.get(file, "")],
        progress=progress,
    )
    return target


def _stated_checksum(etag: str) -> list[str]:
    """Return the checksum in an etag: SHA-256, or git's SHA-1 of a small file; else nothing."""
    return [etag] if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) else []


def _token(endpoint: str | None) -> bool | None:
    """Choose the token: the user's for the hub (or HF_ENDPOINT), none for a mirror."""
    return None if endpoint is None else False


def _repository_folder(model: PublishedModel) -> Path:
    """Return the folder of a repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{model.repository.replace('/', '--')}"


def _torch_folder() -> Path:
    """Return the checkpoint folder of torch.hub, by its documented rule, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def _checked_address(mirror: str) -> str:
    """Return the address without a trailing slash. Raises InputError for an invalid one."""
    try:
        parts = urlsplit(mirror)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"\s", mirror):
        raise InputError(f"--from-mirror needs an address like https://hub.example.org: {mirror!r}")
    return mirror.rstrip("/")


@contextmanager
def _clear_errors(name: str, model: PublishedModel, endpoint: str | None) -> Iterator[None]:
    """Convert errors of the hub, the network and the disk to CheckpointError with one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError

    server = endpoint or (model.url if model.url else constants.ENDPOINT)
    errors: tuple[type[BaseException], ...] = (*network_errors(), EntryNotFoundError, OSError)
    try:
        yield
    except DownloadError as problem:
        raise CheckpointError(str(problem)) from None
    except errors as problem:
        message = _hub_message(name, model, server, problem)
        message = message or _network_message(name, model, server, problem)
        raise CheckpointError(message) from None


def _hub_message(name: str, model: PublishedModel, server: str, problem: BaseException) -> str:
    """Explain an error that the hub's protocol defines, and its remedy; empty for any other."""
    from huggingface_hub import errors as hub

    if isinstance(problem, hub.GatedRepoError):
        return (
            f"{name}: {model.repository} is gated: accept its terms on the hub's page, then log in "
            "(`hf auth login`, or set HF_TOKEN) and try again"
        )
    if isinstance(problem, hub.RevisionNotFoundError):
        return f"{name}: {server} has no main branch of {model.repository}"
    if isinstance(problem, hub.RepositoryNotFoundError):
        return _no_access(name, model, server)
    if isinstance(problem, hub.FileMetadataError):
        return (
            f"{name}: {server} does not follow the hub's protocol ({problem!s:.80}); check the "
            "mirror's address, HF_ENDPOINT and proxy settings"
        )
    if isinstance(problem, hub.LocalEntryNotFoundError):
        return _no_connection(name, server, problem)
    if isinstance(problem, hub.EntryNotFoundError):
        return (
            f"{name}: {server} lacks a required file in {model.repository} "
            f"({', '.join(model.files)}); try another mirror, or {by_hand(name)}"
        )
    return ""


def _network_message(name: str, model: PublishedModel, server: str, problem: BaseException) -> str:
    """Explain an error of the connection or of the disk, and its remedy."""
    if not isinstance(problem, network_errors()):
        assert isinstance(problem, OSError)
        reason = problem.strerror or str(problem).splitlines()[0][:120]
        return f"{name} could not be downloaded: {reason}; try again"
    status = getattr(getattr(problem, "response", None), "status_code", None)
    if status is None:
        return _no_connection(name, server, problem)
    if status in (401, 403):
        return _no_access(name, model, server)
    return f"{name}: {server} answers with error {status}; try again later, or {by_hand(name)}"


def _no_access(name: str, model: PublishedModel, server: str) -> str:
    """Explain missing access to a repository or file."""
    return (
        f"{name}: {server} gives no access to {model.repository or 'the file'} (gone, private, or "
        f"the token is wrong): check HF_TOKEN or log in with `hf auth login`, or {by_hand(name)}"
    )


def _no_connection(name: str, server: str, problem: BaseException) -> str:
    """Explain a missing connection."""
    return (
        f"{name} could not be downloaded: no connection to {server} ({type(problem).__name__}); "
        f"try again, or {by_hand(name)}"
    )
