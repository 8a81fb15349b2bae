"""Numbers as people read them, and a number beside its interval and floor."""

from collections.abc import Sequence

import msgspec

DECIMALS = 4
NAN = float("nan")


class Measured(msgspec.Struct, frozen=True):
    """A number with its interval and its floor; NaN where one is not defined."""

    value: float
    low: float = NAN
    high: float = NAN
    floor: float = NAN


def or_nan(value: float | None) -> float:
    """Return a number, NaN where JSON had null."""
    return NAN if value is None else value


def number(value: float, decimals: int = 2) -> str:
    """Return a number with a real minus sign and no negative zero."""
    return f"{value:z.{decimals}f}".replace("-", "−")


def plural(number: int, noun: str) -> str:
    """Return a number and its noun, such as "1 layer" and "2 layers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
