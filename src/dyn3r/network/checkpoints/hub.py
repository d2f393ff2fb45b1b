"""Fetch published weights into the user's cache: resumable, checked, never twice.

The cache is the one that huggingface_hub keeps (HF_HOME, HF_HUB_CACHE), so files that are there
already are used and what we fetch serves other programs too. HF_ENDPOINT, HF_TOKEN and
HF_HUB_OFFLINE act as everywhere. A broken download goes on where it stopped, in the same run and in
a later one, and a file only gets its name in the cache after its checksum was found right.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from dyn3r.errors import CheckpointError, InputError
from dyn3r.network.checkpoints.catalogue import PublishedModel, published_model
from dyn3r.network.checkpoints.download import checked_fetch, file_name_problem, network_errors
from dyn3r.types import Progress, no_progress

logger = logging.getLogger(__name__)


def cached_files(name: str) -> Path | None:
    """Folder of a published model in the cache (for `raft` its file); None if it is not whole.

    Looks at this machine only. Raises CheckpointError for a name that nobody publishes.
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
    """Fetch a published model, or check the one in the cache, and return where it lies.

    mirror: address of another server that speaks the hub's protocol; it is never sent the user's
    token. Every file is compared with the checksum in our table, where that is known, and with the
    one that the server states (SHA-256 for weights).
    Raises CheckpointError with one line that says what to do instead: unknown name, no connection,
    offline flag, no access, no such file, damaged content, no room. InputError: no address.
    """
    model = published_model(name)
    endpoint = None if mirror is None else _checked_address(mirror)
    if is_offline():
        if found := cached_files(name):
            return found
        raise CheckpointError(
            f"{name} is not on this machine and the offline flag (HF_HUB_OFFLINE) forbids to "
            f"download it; unset the flag, or {by_hand(name)}"
        )
    with _explained(name, model, endpoint):
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
    """How to get a published model without a connection here; a clause for an error message."""
    model = published_model(name)
    if model.url:
        return f"bring {model.url} here by hand as {_torch_folder() / model.files[0]}"
    if model.use == "pointmaps":
        return (
            f"bring {' and '.join(model.files)} of {model.repository} here by hand in one folder "
            "and give it with --model FOLDER"
        )
    return f"bring {_repository_folder(model)} here from a machine where it was downloaded"


def tell_licence_once(name: str) -> None:
    """Log the licence of a published model the first time it is used on this machine."""
    if licence_is_news(name):
        logger.warning("%s is under %s", name, published_model(name).licence)


def licence_is_news(name: str) -> bool:
    """Whether a model's licence was not yet told on this machine; whoever asks will tell it."""
    from huggingface_hub import constants

    marker = Path(constants.HF_HOME) / "dyn3r" / "licence-told" / name
    if marker.exists():
        return False
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as problem:  # a cache that is read-only: then it is told every time
        logger.debug("can't remember that the licence was told: %s", problem)
    return True


def size_on_disk(place: Path) -> int:
    """Bytes of a file, or of the files in a folder (links followed)."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _wanted_files(model: PublishedModel, endpoint: str | None) -> list[str]:
    """File names, with `*.json` replaced by what the repository has; weights last."""
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
    """One file of a repository -> its path in the cache.

    Our own transfer fills the cache's blob, because the library's one starts from nothing after a
    broken run; the library then finds the blob there and makes the rest of its layout.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    token = _token(endpoint)
    address = hf_hub_url(model.repository, file, endpoint=endpoint)
    facts = get_hf_file_metadata(address, token=token)
    for value in (facts.etag, facts.commit_hash):
        if problem := file_name_problem(value):  # they become names in the cache
            raise CheckpointError(f"{name}: {address} is not served as by the hub: {problem}")
    assert facts.etag is not None
    folder = _repository_folder(model)
    lock = folder.parent / ".locks" / folder.name / f"{facts.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        checked_fetch(
            hf_hub_url(model.repository, file, revision=facts.commit_hash, endpoint=endpoint),
            folder / "blobs" / facts.etag,
            label=f"{name}: {file}",
            size=facts.size,
            checksums=[*_stated_checksum(facts.etag), model.sha256.get(file, "")],
            headers=build_hf_headers(token=token),
            progress=progress,
        )
    return Path(hf_hub_download(model.repository, file, endpoint=endpoint, token=token))


def _from_url(name: str, model: PublishedModel, mirror: str | None, progress: Progress) -> Path:
    """A single file that is not on the hub, into PyTorch's own cache, where its reader looks."""
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
    """The hub's etag of a file is its SHA-256, of a small one git's SHA-1; elsewhere anything."""
    return [etag] if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) else []


def _token(endpoint: str | None) -> bool | None:
    """The user's token goes to the hub (or HF_ENDPOINT), and to no mirror named on the way."""
    return None if endpoint is None else False


def _repository_folder(model: PublishedModel) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{model.repository.replace('/', '--')}"


def _torch_folder() -> Path:
    """Where torch.hub keeps checkpoints; its documented rule, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def _checked_address(mirror: str) -> str:
    try:
        parts = urlsplit(mirror)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"\s", mirror):
        raise InputError(f"--from-mirror needs an address like https://hub.example.org: {mirror!r}")
    return mirror.rstrip("/")


@contextmanager
def _explained(name: str, model: PublishedModel, endpoint: str | None) -> Iterator[None]:
    """What can go wrong on the way, as one line that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    server = endpoint or (model.url if model.url else constants.ENDPOINT)
    try:
        yield
    except hub.GatedRepoError:
        raise CheckpointError(
            f"{name}: {model.repository} is gated: accept its terms on the hub's page, then log in "
            "(`hf auth login`, or set HF_TOKEN) and try again"
        ) from None
    except hub.RevisionNotFoundError:
        raise CheckpointError(
            f"{name}: {server} has no main branch of {model.repository}"
        ) from None
    except hub.RepositoryNotFoundError:
        raise CheckpointError(_no_access(name, model, server)) from None
    except hub.FileMetadataError as problem:
        raise CheckpointError(
            f"{name}: {server} does not speak the hub's protocol ({problem!s:.80}); check the "
            "mirror's address, HF_ENDPOINT and proxy settings"
        ) from None
    except hub.LocalEntryNotFoundError as problem:
        raise CheckpointError(_no_connection(name, server, problem)) from None
    except hub.EntryNotFoundError:
        raise CheckpointError(
            f"{name}: {server} has no such file in {model.repository} as we need "
            f"({', '.join(model.files)}); try another mirror, or {by_hand(name)}"
        ) from None
    except network_errors() as problem:  # HfHubHTTPError is one of them
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if status is None:
            raise CheckpointError(_no_connection(name, server, problem)) from None
        if status in (401, 403):
            raise CheckpointError(_no_access(name, model, server)) from None
        raise CheckpointError(
            f"{name}: {server} answers with error {status}; try again later, or {by_hand(name)}"
        ) from None
    except OSError as problem:
        reason = problem.strerror or str(problem).splitlines()[0][:120]
        raise CheckpointError(f"{name} could not be downloaded: {reason}; try again") from None


def _no_access(name: str, model: PublishedModel, server: str) -> str:
    return (
        f"{name}: {server} gives no access to {model.repository or 'the file'} (gone, private, or "
        f"the token is wrong): check HF_TOKEN or log in with `hf auth login`, or {by_hand(name)}"
    )


def _no_connection(name: str, server: str, problem: BaseException) -> str:
    return (
        f"{name} could not be downloaded: no connection to {server} ({type(problem).__name__}); "
        f"try again, or {by_hand(name)}"
    )
