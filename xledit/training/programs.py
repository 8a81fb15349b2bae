"""Source code for the corpus' share of it, as far as installed packages bring some: Python's library, headers, scripts."""

import sysconfig
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from xledit.training.catalog import PROGRAMMING

# bytes of a file: longer ones would fill many windows in a row
LONGEST = 8_000
# programming language -> folders to look in: Python's own, or a package's
FOUND_IN = {
    "python": (sysconfig.get_path("stdlib"),),
    "c": (sysconfig.get_path("include"),),
    "cpp": ("torch",),
    "javascript": ("django",),
}


def documents(code: str, num_bytes: int) -> Iterator[dict]:
    """Yield source files of a programming language, in the order of their paths, up to ``num_bytes``; none where none are found."""
    left = num_bytes
    for place in FOUND_IN.get(code, ()):
        root = Path(place) if Path(place).is_absolute() else Path(str(files(place)))
        for path in sorted(found for suffix in PROGRAMMING[code].suffixes for found in root.rglob(f"*{suffix}")):
            inside = path.relative_to(root).as_posix()
            if "site-packages" in inside or "/test" in f"/{inside}":
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            if not text.strip() or len(text.encode()) > LONGEST:
                continue
            left -= len(text.encode())
            if left < 0:
                return
            yield {"text": text, "id": f"{code}/{inside}", "metadata": {}}
