"""Scripts for the page: title of the tab, keys, the address. viser has no controls for these."""

from __future__ import annotations

import json
from typing import Any

from dyn3r.viewer.viser_internals import SHEET_HANDLE, run_script

ADDRESS_KEY = "dyn3r-address"
"""Entry of the browser's local storage that holds the part of the address after `?`."""
NARROW_PX = 576
"""Width up to which viser shows panels as a sheet at the bottom."""
PLAY, PAUSE, PREVIOUS, NEXT = "play", "pause", "previous", "next"
"""Labels of the buttons of the timeline, which the keys press."""

_START = """
(() => {
  try { localStorage.setItem(%(key)s, window.location.search); } catch (error) {}
  if (window.dyn3rKeys) return;
  window.dyn3rKeys = true;
  const press = (...labels) => {
    const button = [...document.querySelectorAll('button')]
      .find(b => labels.includes(b.innerText.trim()));
    if (button) button.click();
    return Boolean(button);
  };
  if (%(collapse)s && window.innerWidth <= %(narrow)s) {
    // viser opens its sheet over the scene
    const handle = %(handle)s;
    if (handle) handle.click();
  }
  window.addEventListener('keydown', event => {
    const busy = event.ctrlKey || event.metaKey || event.altKey || event.shiftKey
      || event.target.closest('input, textarea, select, button, [role=slider]');
    if (busy) return;
    const done = event.code === 'Space' ? press(%(play)s, %(pause)s)
      : event.code === 'ArrowLeft' ? press(%(previous)s)
      : event.code === 'ArrowRight' ? press(%(next)s) : false;
    if (done) { event.preventDefault(); event.stopImmediatePropagation(); }
  }, true);
})();
"""
_LEGEND = """
(() => {
  if (document.getElementById('dyn3r-legend')) return;  // the recording has started again
  const box = document.createElement('div');
  box.id = 'dyn3r-legend';
  box.style.cssText = 'position:fixed;left:12px;bottom:56px;z-index:50;padding:6px 10px;'
    + 'border-radius:4px;background:rgba(20,20,20,0.75);color:#ddd;font:13px sans-serif';
  box.innerHTML = %s;
  document.body.appendChild(box);
})();
"""


def start_page_script(client: Any, *, collapse_sheet: bool = True) -> None:
    """Keys for the timeline; and the address for `dyn3r.viewer.address.read_address`.

    `collapse_sheet`: in narrow windows, at first. The script starts once per page.
    """
    names = {
        "key": "viser-user:" + ADDRESS_KEY, "narrow": NARROW_PX, "collapse": collapse_sheet,
        "play": PLAY, "pause": PAUSE, "previous": PREVIOUS, "next": NEXT,
    }  # fmt: skip
    values = {name: json.dumps(value) for name, value in names.items()}
    run_script(client, _START % {**values, "handle": SHEET_HANDLE})


def set_title(target: Any, title: str) -> None:
    """Set the title of the tab."""
    run_script(target, f"document.title = {_literal(f'{title} - dyn3r')};")


def overlay_legend(target: Any, html: str) -> None:
    """Show a legend over the page of a recording, which has no controls; empty: none."""
    if html:
        run_script(target, _LEGEND % _literal(html))


def set_query(client: Any, text: str) -> None:
    """Replace the part of the address after `?`."""
    address = _literal(f"?{text}") if text else "location.pathname"
    run_script(client, f"history.replaceState(null, '', {address});")


def _literal(text: str) -> str:
    """JavaScript string; a recording stands inside a <script>, which `</` could end."""
    return json.dumps(text).replace("</", "<\\/")
