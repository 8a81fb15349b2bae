"""Save and load artifacts: whole or not at all, and the same bytes for the same content.

One writer for all of them. safetensors files carry at most one metadata key, because with two their bytes come out in
random order (safetensors 0.8, huggingface/safetensors#584) and DVC would rerun everything downstream.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

HEADER = "xledit"
T = TypeVar("T")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` under a temporary name in the same folder, sync it and rename it.

    Raises OSError, with what was at ``path`` untouched and no temporary file left, when the disk is full or fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON with sorted keys, two spaces of indent and a final newline. NaN becomes null."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Return the content of ``path`` as ``kind``. Raises ValueError with the path and the place that does not fit."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not found; run `dvc repro` or `dvc pull`") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; delete it and run `dvc repro` again") from error


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], header: object) -> None:
    """Write named arrays and one JSON-able ``header`` as safetensors."""
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}
    metadata = {HEADER: msgspec.json.encode(header, order="sorted").decode()}
    write_bytes(path, safetensors.numpy.save(arrays, metadata))


def read_tensors(path: Path, kind: type[T]) -> tuple[dict[str, np.ndarray], T]:
    """Return the arrays of ``path`` and its header as ``kind``.

    Raises ValueError when the file is missing, truncated, not safetensors or was not written by ``write_tensors``.
    """
    sys.audit("xledit.read", str(path))  # safetensors opens files in Rust, where no audit event is raised
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = (file.metadata() or {}).get(HEADER)
            if header is None:
                raise ValueError(f"{path}: no {HEADER!r} header; this file was not written by xledit; delete it and run `dvc repro` again")
            return {name: file.get_tensor(name) for name in file.keys()}, msgspec.json.decode(header, type=kind)  # noqa: SIM118
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not found; run `dvc repro` or `dvc pull`") from error
    except (safetensors.SafetensorError, msgspec.DecodeError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); delete it and run `dvc repro` again") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
