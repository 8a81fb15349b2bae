"""Read one section of ``params.yaml`` into a typed struct.

By named section, never the whole file, so that a stage's ``params:`` in ``dvc.yaml`` can be as narrow as what it reads.
"""

import re
import sys
from pathlib import Path
from types import UnionType
from typing import TypeVar, get_args

import msgspec
import msgspec.inspect
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS = Path("params.yaml")
SECTIONS = (
    "seed",
    "runtime",
    "model",
    "data",
    "grid",
    "edit",
    "watch",
    "covariance",
    "vectors",
    "methods",
    "evaluate",
    "summary",
    "tranyu",
)


T = TypeVar("T")


def section(path: str, kind: type[T]) -> T:
    """Return the value at the dotted ``path`` of ``params.yaml`` as ``kind``.

    Raises:
        ValueError: the file or the section is missing, or a key is unknown, missing or of another type; the
            message has the key's whole path.
    """
    sys.audit("xledit.param", path)
    known = _load()
    for depth, name in enumerate(path.split(".")):
        if not isinstance(known, dict) or name not in known:
            above = ".".join(path.split(".")[:depth]) or "the top level"
            names = ", ".join(map(str, known)) if isinstance(known, dict) else "nothing"
            raise ValueError(f"{PARAMS}: {path}: no such setting; {above} has: {names}")
        known = known[name]
    try:
        return msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        field = re.search(r" field `(.+?)`", reason)
        place = path + where.rstrip("`") + (f".{field[1]}" if field else "")
        raise ValueError(f"{PARAMS}: {place}: {reason}{_hint(kind, known, where.rstrip('`'))}") from error


def check_positive(name: str, value: float | int) -> None:
    """Raise ValueError unless the setting is above 0."""
    if not value > 0:
        raise ValueError(f"{name} is {value}; it must be above 0")


def _hint(kind: object, found: object, where: str) -> str:
    """Return what would have been right: the known types of a union, the choices of a field, or the keys of a struct."""
    infos = [msgspec.inspect.type_info(part) for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,))]
    structs = [info for info in infos if isinstance(info, msgspec.inspect.StructType)]
    tags = {info.tag: info for info in structs if info.tag is not None}
    tag = str(found.get("type")) if isinstance(found, dict) else ""
    if tags and tag not in tags:
        return f"; known types: {', '.join(map(str, tags))}"
    fields = tags[tag].fields if tags else structs[0].fields if structs else ()
    for field in fields:
        if f".{field.name}" == where and isinstance(field.type, msgspec.inspect.LiteralType):
            return f"; known: {', '.join(map(str, field.type.values))}"
    return f"; known keys: {', '.join(field.name for field in fields)}" if fields else ""


def _load() -> dict:
    try:
        tree = YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{PARAMS}: not found; run the stages from the project's root") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{PARAMS}: not a YAML file in UTF-8: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{PARAMS}: expected sections, found {type(tree).__name__}")
    unknown = [name for name in tree if name not in SECTIONS]
    if unknown:
        raise ValueError(f"{PARAMS}: {unknown[0]}: unknown section; known: {', '.join(SECTIONS)}")
    return tree
