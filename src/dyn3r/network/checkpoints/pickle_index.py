"""Allow list for the pickle inside a .pth, checked before anything is built from it (SPEC 1.1).

PyTorch's weights-only reader runs no foreign code, but some functions on its own allow list can
allocate much memory: a file of a kilobyte may request `bytearray(10**11)`. So the names are read
first, without executing anything, and compared with those that checkpoints need.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from dyn3r.errors import CheckpointError

_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)
ALLOWED = frozenset(
    {
        "argparse Namespace",
        "collections OrderedDict",
        "torch Size",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch.serialization _get_layout",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        # refused later, with a clearer message
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_meta_tensor_no_storage",
        *(f"torch {kind}Storage" for kind in _STORAGES),
        *(f"torch {name}" for name in _DTYPES),
    }
)
"""Module and name of everything that the index of a checkpoint may refer to."""


def check_index(place: Path) -> None:
    """Check the names in the index of a .pth, without executing anything. Raises CheckpointError.

    The archive itself was checked before: one uncompressed index of bounded size.
    """
    with zipfile.ZipFile(place) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        try:
            with archive.open(name) as index:
                named = [arg for op, arg, _ in pickletools.genops(index) if op.name == "GLOBAL"]
        except (ValueError, EOFError, zipfile.BadZipFile, RuntimeError, OSError) as error:
            raise CheckpointError("is a damaged .pth file; it was not loaded") from error
    if unknown := sorted({str(n) for n in named} - ALLOWED):
        raise CheckpointError(
            f"needs more than weights and plain values ({unknown[0].replace(' ', '.'):.80}): it "
            "contains code or is damaged; it was not loaded"
        )
