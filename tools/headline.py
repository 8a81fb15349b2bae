"""Print the headline table again from reports/cells."""

import sys
from pathlib import Path

from stages.editing.report import read_cells
from xledit.report.common.numbers import aligned
from xledit.report.editing.tables import headline


def main() -> int:
    """Print the table. Returns the exit status."""
    try:
        print(aligned(headline(read_cells(Path("reports/cells")))))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
