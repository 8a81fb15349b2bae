"""A language's token shard on disk: its documents end to end, in numbered parts of a bounded size, written and read in constant memory.

Each part is a safetensors file of whole documents, ``tokens`` (unsigned integers) and ``ends``, where each of its documents ends in it.
The last part says that it is the last, so a shard that was not written to its end is not taken for a whole one.
"""

import hashlib
import shutil
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open

from xledit.storage import HEADER, write_tensors

# how many tokens are checked at a time
BLOCK = 1 << 22
AGAIN = "delete it and run `dvc repro` again"


class PartHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a part says of itself: whose it is, its number from 0, and whether it is the shard's last."""

    language: str
    part: int
    last: bool


@dataclass(frozen=True)
class TokenShard:
    """One language's documents on disk, end to end; tokens are read when they are asked for.

    ``ends`` are where documents end ``[documents]`` int64, ``digest`` is a SHA-256 of all tokens and ends: neither knows of the parts.
    """

    ends: np.ndarray
    digest: str
    _parts: tuple[Any, ...]  # safetensors' slices: unsigned integers [tokens of the part]
    _starts: tuple[int, ...]  # where each part begins, and where the last one ends

    @classmethod
    def open(cls, folder: Path, vocabulary: int) -> "TokenShard":
        """Return a shard whose ends ascend to each part's last token and whose ids are all below ``vocabulary``; reads it once to the end.

        In memory are 8 bytes per document (twice that for a moment). Raises ValueError that names the file when a part is missing,
        damaged or empty, or breaks one of these rules.
        """
        names = {path.name for path in folder.glob("*.safetensors")}
        files = [folder / part_name(number) for number in range(max(len(names), 1))]
        if not names:
            raise ValueError(f"{files[0]}: not found; run `dvc repro` or `dvc pull`")
        for file in files:
            if file.name not in names:
                other = ", ".join(sorted(names - {file.name for file in files}))
                raise ValueError(f"{file}: not found, but {other} is there; delete {folder} and run `dvc repro` again, or `dvc pull`")
        parts, ends, starts = [], [], [0]
        for number, file in enumerate(files):
            tokens, its_ends = _open_part(file, number, is_last=number + 1 == len(files))
            if parts and tokens.get_dtype() != parts[0].get_dtype():
                raise ValueError(f"{file}: tokens are {tokens.get_dtype()}, but those of {files[0].name} {parts[0].get_dtype()}; {AGAIN}")
            parts.append(tokens)
            ends.append(its_ends + starts[-1])
            starts.append(int(ends[-1][-1]))
        all_ends = np.concatenate(ends)
        digest = hashlib.sha256(all_ends.data)
        for file, tokens, start, stop in zip(files, parts, starts, starts[1:], strict=False):
            for place in range(0, stop - start, BLOCK):
                block = tokens[place : min(place + BLOCK, stop - start)]
                if block.max() >= vocabulary:
                    raise ValueError(f"{file}: holds token {block.max()}, but the tokenizer has {vocabulary}; {AGAIN}")
                digest.update(block.data)
        return cls(all_ends, digest.hexdigest(), tuple(parts), tuple(starts))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens from ``start`` to before ``stop``, which may lie in several parts. Raises IndexError outside of the shard."""
        if not 0 <= start < stop <= self._starts[-1]:
            raise IndexError(f"tokens {start} to {stop} of {self._starts[-1]}")
        pieces = []
        for place in range(bisect_right(self._starts, start) - 1, len(self._parts)):
            first, end = self._starts[place], self._starts[place + 1]
            if first >= stop:
                break
            pieces.append(self._parts[place][max(start - first, 0) : min(stop, end) - first])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def write_shard(folder: Path, documents: Iterable[np.ndarray], language: str, part_tokens: int) -> None:
    """Write documents, each of at least one token, end to end in parts of at most ``part_tokens``; a longer document is a part of its own.

    The folder is written anew: no part of an earlier run stays. In memory are one part's tokens (4 bytes each; 12 while it is written) and
    8 bytes for each of its documents, or one longer document. Raises ValueError when there are no documents.
    """
    if folder.exists():
        shutil.rmtree(folder)
    part = _Part(part_tokens)
    number = 0
    for document in documents:
        if not part.fits(document):
            _write_part(folder, PartHeader(language=language, part=number, last=False), part)
            number += 1
            part.clear()
        part.add(document)
    if not part.ends:
        raise ValueError(f"{folder}: no documents; give {language} a source, or leave it out")
    _write_part(folder, PartHeader(language=language, part=number, last=True), part)


def part_name(number: int) -> str:
    """Return the name of a part's file."""
    return f"{number:05d}.safetensors"


class _Part:
    """The documents of the part that is being filled."""

    def __init__(self, most: int) -> None:
        self._row = np.empty(most, dtype=np.uint32)  # the system hands out its pages as they are filled
        self._long: np.ndarray | None = None
        self.ends = array("q")

    def fits(self, document: np.ndarray) -> bool:
        return not self.ends or self.ends[-1] + len(document) <= len(self._row)

    def add(self, document: np.ndarray) -> None:
        start = self.ends[-1] if self.ends else 0
        if len(document) > len(self._row):
            self._long = document
        else:
            self._row[start : start + len(document)] = document
        self.ends.append(start + len(document))

    def tokens(self) -> np.ndarray:
        return self._row[: self.ends[-1]] if self._long is None else self._long

    def clear(self) -> None:
        self._long, self.ends = None, array("q")


def _write_part(folder: Path, header: PartHeader, part: _Part) -> None:
    tensors = {"tokens": part.tokens(), "ends": np.frombuffer(part.ends, dtype=np.int64)}
    write_tensors(folder / part_name(header.part), tensors, header)


def _open_part(path: Path, number: int, *, is_last: bool) -> tuple[Any, np.ndarray]:
    """Return a part's tokens, not yet read, and its ends. Raises ValueError that names the file when it breaks a rule."""
    sys.audit("xledit.read", str(path))  # safetensors opens files in Rust, where no audit event is raised
    try:
        file = safe_open(path, framework="np")
        tokens, ends = file.get_slice("tokens"), file.get_tensor("ends")
        header = msgspec.json.decode((file.metadata() or {}).get(HEADER, ""), type=PartHeader)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file with tokens and ends ({error}); {AGAIN}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: does not say which part it is ({error}); {AGAIN}") from error
    if len(tokens.get_shape()) != 1 or tokens.get_dtype()[0] != "U" or ends.ndim != 1 or ends.dtype != np.int64:
        raise ValueError(
            f"{path}: tokens are {tokens.get_dtype()} {tokens.get_shape()} and ends {ends.dtype} {list(ends.shape)}; "
            f"want one row of unsigned integers and one of int64; {AGAIN}"
        )
    if header.part != number:
        raise ValueError(f"{path}: says it is part {header.part}; {AGAIN}")
    if header.last != is_last:
        found = f"that {part_name(number + 1)} follows, which was not found" if is_last else "it is the last part, but others follow"
        raise ValueError(f"{path}: says {found}; delete {path.parent} and run `dvc repro` again")
    (size,) = tokens.get_shape()
    if not len(ends) or not size:
        raise ValueError(f"{path}: {len(ends)} documents with {size} tokens; give the language a source, or leave it out")
    if np.diff(ends, prepend=0).min() < 1:
        raise ValueError(f"{path}: the ends of documents do not ascend from 1; {AGAIN}")
    if ends[-1] != size:
        raise ValueError(f"{path}: the last document ends at {ends[-1]}, but there are {size} tokens; {AGAIN}")
    return tokens, ends
