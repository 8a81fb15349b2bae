"""Write the README's tables from the summaries they show, or with ``--check`` fail when they differ.

A table stands between ``<!-- cells: FOLDER -->`` and ``<!-- end -->``; FOLDER holds one summary per method and edit.
"""

import math
import re
import sys
from pathlib import Path

from xledit.reporting.tables import MatrixRow, Measured, matrix
from xledit.results import CellSummary
from xledit.storage import read_json, write_bytes

README = Path("README.md")
BLOCK = re.compile(r"(<!-- cells: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = ("efficacy", "exact", "paraphrase", "locality", "locality_tokens")
EDITS = ("zh", "en", "mixed")


def table(folder: Path) -> str:
    """Return the markdown table of the summaries in a folder: per cent, the floor in brackets."""
    cells = [read_json(path, CellSummary) for path in folder.glob("*.json")]
    cells.sort(key=lambda cell: (cell.method != "memit", cell.method, EDITS.index(cell.edit)))
    head = ["method", "edit", "asked in", *(name.replace("_", " ") for name in COLUMNS), "net transfer, preference", "net transfer, exact"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(_line(row) for row in matrix(cells))]) + "\n"


def _line(row: MatrixRow) -> str:
    cells = [row.method, row.edit, row.probe]
    cells += [f"{100 * row.measured[name].value:.0f} ({100 * row.measured[name].floor:.0f})" for name in COLUMNS]
    cells += [_with_interval(row.transfer.get(name)) for name in ("efficacy", "exact")]
    return "| " + " | ".join(cells) + " |"


def _with_interval(transfer: Measured | None) -> str:
    if transfer is None or math.isnan(transfer.value):
        return ""
    return f"{transfer.value:.2f} [{transfer.low:.2f}, {transfer.high:.2f}]"


def main() -> int:
    """Rewrite the README's tables. Returns the exit status."""
    text = README.read_text(encoding="utf-8")
    fresh = BLOCK.sub(lambda match: match[1] + table(Path(match[2])) + match[3], text)
    if fresh == text:
        return 0
    if "--check" in sys.argv:
        print(f"{README}: a table is not the one of its summaries; run `python -m tools.readme`", file=sys.stderr)
        return 1
    write_bytes(README, fresh.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
