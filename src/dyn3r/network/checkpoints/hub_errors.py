"""Messages of failed downloads: what happened, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dyn3r.errors import CheckpointError, DownloadError
from dyn3r.io.download import network_errors
from dyn3r.network.checkpoints.catalogue import PublishedModel, published_model
from dyn3r.network.checkpoints.hub_files import repository_folder, torch_folder


def by_hand(name: str) -> str:
    """Explain how to install a published model without a connection; a clause for messages."""
    model = published_model(name)
    if model.url:
        return f"copy {model.url} by hand to {torch_folder() / model.files[0]}"
    if model.use == "geometry":
        return (
            f"copy {' and '.join(model.files)} of {model.repository} by hand to one folder and "
            "give it with --model FOLDER"
        )
    return f"copy {repository_folder(model)} from a machine where it was downloaded"


@contextmanager
def clear_errors(name: str, model: PublishedModel, endpoint: str | None) -> Iterator[None]:
    """Convert errors of the hub, the network and the disk to CheckpointError with one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError

    server = endpoint or (model.url if model.url else constants.ENDPOINT)
    # ValueError: an address that the client refuses
    errors: tuple[type[BaseException], ...] = (
        *network_errors(), EntryNotFoundError, OSError, ValueError,
    )  # fmt: skip
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
        reason = getattr(problem, "strerror", None) or str(problem).partition("\n")[0][:120]
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
