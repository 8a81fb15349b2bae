"""The template engine of all pages, and its filters."""

import math
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from xledit.languages import LANGUAGES
from xledit.report.common import numbers


def template(folder: Path, name: str) -> Template:
    """Return the template ``name`` of a page's folder, with the filters of all pages; values put into it are escaped."""
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "setting": setting, "lang": lang}
    return environment.get_template(name)


def number(value: float | None, decimals: int = 2, why: str = "not defined") -> str:
    """Return a number with a real minus sign, or an em dash with the reason."""
    if value is None or math.isnan(value):
        return Markup('<span class="none" title="{}">—</span>').format(why)
    return numbers.number(value, decimals)


def setting(value: object) -> str:
    """Return a setting as text: lists and mappings with commas, None as "none"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value))
    return "none" if value is None else str(value)


def lang(code: str) -> str:
    """Return the value of an HTML ``lang`` attribute: language and script."""
    return f"{code}-{LANGUAGES[code].script}" if code in LANGUAGES else code
