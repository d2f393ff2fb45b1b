"""What dyn3r uses of viser beyond its documented interface (viser 1.1), and of its page.

Another version of viser may need changes here, and in `dyn3r.viewer.access`, which checks the
requests to its server. Nothing else relies on its internals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SHEET_HANDLE = (
    "[...document.querySelectorAll('div')]"
    ".find(d => d.style.cursor === 'pointer' && d.style.height === '3.5em')"
)
"""JavaScript expression: the handle that opens and closes the sheet of narrow windows."""
FIRST_UPLOAD = "document.querySelector('input[type=file]')"
"""JavaScript expression: the input of the first upload button of the page."""
_KEEP_COLORS = """
(() => {
  const set = () => {
    const page = window.__viserMutable;
    if (!page || !page.scene) { requestAnimationFrame(set); return; }
    page.scene.onBeforeRender = renderer => { renderer.toneMapping = 0; };
    if (page.requestRender) page.requestRender();
  };
  set();
})();
"""


def run_script(target: Any, source: str) -> None:
    """Run JavaScript in the page of viser's server or of one of its clients."""
    from viser._messages import RunJavascriptMessage

    target.gui._websock_interface.queue_message(RunJavascriptMessage(source=source))


def keep_colors(target: Any) -> None:
    """Show textures in their own colours: viser's page changes them to those of film."""
    run_script(target, _KEEP_COLORS)


def limit_upload_bytes(client: Any, max_bytes: int, refuse: Callable[[], None]) -> None:
    """Refuse uploads of a browser that announce, or turn out to be, more bytes.

    viser collects an upload in memory, whatever its size.
    """
    from viser._messages import FileTransferPart, FileTransferStartUpload

    states = client.gui._current_file_upload_states

    async def started(_: int, message: Any) -> None:
        if not 0 <= message.size_bytes <= max_bytes:
            states.pop(message.transfer_uuid, None)
            refuse()

    async def received(_: int, message: Any) -> None:
        state = states.get(message.transfer_uuid)
        if state is not None and state["transferred_bytes"] > max_bytes:
            states.pop(message.transfer_uuid, None)
            refuse()

    interface = client.gui._websock_interface
    interface.register_handler(FileTransferStartUpload, started)
    interface.register_handler(FileTransferPart, received)
