"""Web server of a page: port, access, start and stop."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dyn3r.errors import InputError
from dyn3r.io.arguments import check_type
from dyn3r.io.numbers import checked_whole
from dyn3r.viewer.access import LOCAL_NAMES, TOKEN_FIELD, checked_server

logger = logging.getLogger(__name__)


class WebPage:
    """A viser server and its address. `server` (viser's `ViserServer`) accepts further nodes."""

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        """Start to listen on `host`, at the first free port of `port` and the nineteen after it.

        With a `token`, only browsers that once came with it in the address are answered.

        Raises:
            InputError: no port or host to listen on.
        """
        import viser

        check_type(host, str, "the host")
        self.host = host
        self._token = token
        if host not in LOCAL_NAMES and token is None:
            logger.warning(
                "listening on %s: every machine that can connect to this one can see and control "
                "the page, there is no password",
                host or "all addresses",
            )
        with _stdout_to_log(), checked_server(host, token):
            self.server: Any = viser.ViserServer(
                host, free_port(host, port), label="dyn3r", verbose=False
            )
        self.port = int(self.server.get_port())
        self._stopped = threading.Event()
        # A browser may leave while messages for it are made.
        warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
        logging.getLogger("websockets.server").addFilter(_in_one_line)
        self.server.gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,  # it would publish the page through a third party's server
            control_width="medium",
        )

    @property
    def url(self) -> str:
        """Address of the page for a browser on this machine."""
        host = "localhost" if self.host in ("", "0.0.0.0", "::") else self.host
        address = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        return address if self._token is None else f"{address}/?{TOKEN_FIELD}={self._token}"

    def open_in_browser(self) -> bool:
        """Open the page in a new tab of this machine's browser; False if there is none."""
        import webbrowser

        try:
            # Text browsers would take over the terminal.
            kind = type(webbrowser.get()).__name__
            return kind != "GenericBrowser" and webbrowser.open_new_tab(self.url)
        except webbrowser.Error:
            return False

    @property
    def stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped.is_set()

    def wait(self) -> None:
        """Block until `stop` is called. Ctrl-C stops the page."""
        try:
            while not self._stopped.wait(0.5):
                pass
        except KeyboardInterrupt:
            self.stop()

    def stop(self) -> None:
        """Close the page and free the port. Further calls have no effect."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._end_work()
        with _stdout_to_log():
            self.server.stop()
        logging.getLogger("websockets.server").removeFilter(_in_one_line)

    def _end_work(self) -> None:
        """End the threads of a subclass. `stop` calls it before the server ends."""


def _in_one_line(record: logging.LogRecord) -> bool:
    """Filter for the server's log: no tracebacks because of what a browser sends."""
    message = record.getMessage()
    if message == "connection handler failed":
        logger.debug(message, exc_info=record.exc_info)
        record.msg, record.args = "a connection sent what is no message of the page; closed", ()
        record.exc_info = record.exc_text = None
    # Browsers open spare connections and close them unused. That is no error.
    return message != "opening handshake failed"


@contextmanager
def _stdout_to_log() -> Iterator[None]:
    """Send viser's messages on start and stop to the log."""
    with io.StringIO() as printed:
        with contextlib.redirect_stdout(printed):
            yield
        logger.debug("viser: %s", printed.getvalue())


def free_port(host: str, port: int, tries: int = 20) -> int:
    """First free port from `port` on; a port other than `port` is logged.

    viser itself would try a thousand ports, and would then hang on an invalid host.

    Raises:
        InputError: `host` is invalid, or all of the ports are taken.
    """
    checked_whole(port, "the port", low=0, high=65535)
    for candidate in range(port, min(port + tries, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                found = int(probe.getsockname()[1])
        except UnicodeError:
            raise InputError(f"cannot listen on host {host!r:.60}: it is no host name") from None
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            reason = error.strerror or error
            raise InputError(f"cannot listen on host {host!r:.60}: {reason}") from error
        if found != port and port != 0:
            logger.warning("port %d is taken: using %d", port, found)
        return found
    raise InputError(f"ports {port} to {port + tries - 1} are taken: choose another one")
