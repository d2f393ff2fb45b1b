"""Writer of binary glTF 2.0 (.glb)."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

_COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_ARRAY_BUFFER = 34962


class GltfFile:
    """Nodes, meshes, cameras and animations of a glTF document; `to_bytes` is the file."""

    def __init__(self) -> None:
        """Start with an empty document."""
        self._binary = bytearray()
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._roots: list[int] = []
        self._required: list[str] = []

    def add(self, kind: str, **properties: Any) -> int:
        """Append to the list `kind` (meshes, nodes, cameras, ...); returns the index."""
        self._lists.setdefault(kind, []).append(properties)
        return len(self._lists[kind]) - 1

    def accessor(
        self,
        array: np.ndarray,
        *,
        normalized: bool = False,
        limits: bool = False,
        vertices: bool = False,
    ) -> int:
        """Store an array (k,) or (k, c); returns the index of its accessor.

        Args:
            array: float32, uint32, uint16 or uint8.
            normalized: integers stand for 0..1.
            limits: write minimum and maximum, which glTF requires of positions and times.
            vertices: the array is a vertex attribute.
        """
        table = np.ascontiguousarray(array.reshape(len(array), -1))
        columns = table.shape[1]
        stored = table
        if vertices and (table.itemsize * columns) % 4:  # glTF aligns every vertex
            stored = np.zeros((len(table), columns + 1), table.dtype)
            stored[:, :columns] = table
            assert (stored.itemsize * stored.shape[1]) % 4 == 0
        view = self._view(stored.astype(table.dtype.newbyteorder("<")).tobytes())
        if vertices:
            self._lists["bufferViews"][view]["target"] = _ARRAY_BUFFER
        if stored is not table:
            self._lists["bufferViews"][view]["byteStride"] = stored.itemsize * stored.shape[1]
        properties: dict[str, Any] = {
            "bufferView": view,
            "componentType": _COMPONENTS[table.dtype.name],
            "count": len(table),
            "type": _TYPES[columns],
        }
        if normalized:
            properties["normalized"] = True
        if limits:
            properties |= {"min": table.min(axis=0).tolist(), "max": table.max(axis=0).tolist()}
        return self.add("accessors", **properties)

    def require(self, extension: str) -> None:
        """Name an extension that a reader must know."""
        self._required.append(extension)

    def image(self, content: bytes, mime_type: str) -> int:
        """Store an encoded image; returns its index."""
        return self.add("images", bufferView=self._view(content), mimeType=mime_type)

    def _view(self, content: bytes) -> int:
        """Store bytes; returns the index of their buffer view."""
        view = self.add(
            "bufferViews", buffer=0, byteOffset=len(self._binary), byteLength=len(content)
        )
        self._binary += content + b"\0" * (-len(content) % 4)
        return view

    def node(self, name: str, parent: int | None = None, **properties: Any) -> int:
        """Add a node under `parent`, or at the top; returns its index."""
        index = self.add("nodes", name=name, **properties)
        if parent is None:
            self._roots.append(index)
        else:
            self._lists["nodes"][parent].setdefault("children", []).append(index)
        return index

    def to_bytes(self, extras: dict[str, Any]) -> bytes:
        """Content of the file; `extras` are application data of the scene."""
        document = {
            "asset": {"version": "2.0", "generator": "dyn3r"},
            "scene": 0,
            "scenes": [{"nodes": self._roots, "extras": extras}],
            **self._lists,
        }
        if self._binary:
            document["buffers"] = [{"byteLength": len(self._binary)}]
        unlit = ["KHR_materials_unlit"] if "materials" in self._lists else []
        if unlit or self._required:
            document["extensionsUsed"] = [*unlit, *self._required]
        if self._required:
            document["extensionsRequired"] = self._required
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
        text += b" " * (-len(text) % 4)
        binary = bytes(self._binary) + b"\0" * (-len(self._binary) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
        return b"".join(
            [head, struct.pack("<I4s", len(text), b"JSON"), text,
             struct.pack("<I4s", len(binary), b"BIN\0"), binary]
        )  # fmt: skip
