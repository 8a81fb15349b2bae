"""Settings that suit a model, as data: `python -m tools.overlay NAME` writes settings/NAME.yaml's into params.yaml.

``--list`` names the overlays and what they rest on, ``--check`` holds every one against params.yaml, the library's types and
its model's layers. settings/README.md says what a file holds.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from stages.common.runner import run
from xledit.params import PARAMS
from xledit.reporting.tables import aligned
from xledit.storage import write_bytes

SETTINGS = Path("settings")
LAYERS = "edit.layers"
NUM_LAYERS = 6  # the default run edits layers 4 to 9 of 18


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that an overlay is for. ``family`` is its ``config.model_type``."""

    hub: str
    family: str
    num_layers: int
    d_model: int


class Tuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tools/tune.py came to its choice: the commit it ran on, tracked files that differed from it, and every trial."""

    commit: str
    changed: tuple[str, ...]
    date: date
    method: str
    num_facts: int
    trials: tuple[dict[str, Any], ...]


class Overlay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of settings/. ``params`` is a tree of settings of params.yaml.

    ``basis``: ``published`` settings of others, with their address in ``source``; the ``rule`` (``recommended_layers``); or
    ``tuned`` by tools/tune.py, with the trials in ``tuning``.
    """

    model: ModelFacts
    basis: Literal["rule", "published", "tuned"]
    source: str
    note: str = ""
    params: dict[str, Any]
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        if (self.basis == "tuned") != (self.tuning is not None):
            raise ValueError("tuning belongs to basis tuned, and basis tuned needs it")


def recommended_layers(num_layers: int) -> list[int]:
    """Return six consecutive layers, the first at two ninths (22 %) of the depth, rounded half up: 4 to 9 of 18.

    The default run's layers, carried to other depths; a model that is too shallow gives those that it has. A rule, not a
    measurement: only the 18-layer default has been tried.
    """
    first = (4 * num_layers + 9) // 18
    return list(range(first, min(first + NUM_LAYERS, num_layers)))


def load_overlay(path: Path) -> Overlay:
    """Return a file of settings/. Raises ValueError with the file and the key that is wrong."""
    try:
        return msgspec.convert(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")), Overlay)
    except FileNotFoundError as error:
        known = ", ".join(overlays()) or "none"
        raise ValueError(f"{path}: not found; known overlays: {known}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file in UTF-8: {error}") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def overlays() -> dict[str, Path]:
    """Return the files of settings/ by name."""
    return {path.stem: path for path in sorted(SETTINGS.glob("*.yaml"))}


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return a tree of settings as values by dotted key."""
    values = {}
    for name, value in tree.items():
        values |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return values


def set_params(root: Path, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Set dotted settings of ``root``'s params.yaml, whose comments and order stay. Returns old and new values of those that differ.

    Raises ValueError, with the file untouched, when a key is not there.
    """
    path = root / PARAMS
    yaml = round_trip()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    changed = {}
    for key, value in values.items():
        section, name = _place(tree, key, f"{path}: {key}: no such setting")
        if section[name] != value:
            changed[key] = (section[name], value)
        section[name] = in_line(value)
    text = io.StringIO()
    yaml.dump(tree, text)
    write_bytes(path, text.getvalue().encode())
    return changed


def check_values(values: Mapping[str, Any], tree: dict[str, Any], source: str) -> None:
    """Hold settings against the tree of params.yaml and the library's types.

    Raises ValueError with ``source`` and the key when one is not in params.yaml, is not about the model, or does not convert.
    """
    merged = msgspec.json.decode(msgspec.json.encode(tree))
    for key, value in values.items():
        section, name = _place(merged, key, f"{source}: params.{key}: params.yaml has no such setting")
        section[name] = value
    touched = {part: kind for key in values for part, kind in [_kind_of(key, source)]}
    for part, kind in touched.items():
        section, name = _place(merged, part, source)
        try:
            msgspec.convert(section[name], kind)
        except msgspec.ValidationError as error:
            reason, _, where = str(error).partition(" - at `$")
            raise ValueError(f"{source}: params.{part}{where.rstrip('`')}: {reason}") from error


def check(path: Path, tree: dict[str, Any]) -> Overlay:
    """Return the overlay of a file that fits params.yaml's ``tree``, the library's types and the model it is for.

    Raises ValueError with the file and the key that does not.
    """
    # torch and transformers take seconds to import, and tests must set their hook before they are
    from xledit.families.table import FAMILIES
    from xledit.models.family import check_layers

    overlay = load_overlay(path)
    values = flat(overlay.params)
    check_values(values, tree, str(path))
    if overlay.model.family not in FAMILIES:
        raise ValueError(f"{path}: model.family {overlay.model.family!r} is none of {', '.join(FAMILIES)}")
    try:
        check_layers(tuple(values.get(LAYERS, ())), overlay.model.num_layers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    wanted = recommended_layers(overlay.model.num_layers)
    if overlay.basis == "rule" and values[LAYERS] != wanted:
        raise ValueError(f"{path}: params.{LAYERS} is {values[LAYERS]}, and the rule says {wanted}; change one or the basis")
    return overlay


def read_params() -> dict[str, Any]:
    """Return the tree of params.yaml in the current folder. Raises ValueError when it is not there."""
    try:
        return YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{PARAMS}: not found; run from the project's root") from error


def round_trip() -> YAML:
    """Return a YAML reader and writer that keeps comments, order, long lines and the word null."""
    yaml = YAML()
    yaml.width = 2**16
    yaml.Representer = _Representer
    return yaml


def in_line(value: Any) -> Any:
    """Return a list so that it is written as ``[a, b]``; anything else as it is."""
    if not isinstance(value, list | tuple):
        return value
    row = CommentedSeq(map(in_line, value))
    row.fa.set_flow_style()
    return row


class _Representer(RoundTripRepresenter):
    """ruamel leaves null empty."""


_Representer.add_representer(type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"))


def _place(tree: Any, key: str, complaint: str) -> tuple[Any, str]:
    """Return the section that a dotted key lies in, and its name there."""
    *above, name = key.split(".")
    for part in above:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    if not isinstance(tree, Mapping) or name not in tree:
        near = f"{'.'.join(above)} has: {', '.join(map(str, tree))}" if isinstance(tree, Mapping) else f"it has no {'.'.join(above)}"
        raise ValueError(f"{complaint}; {near}")
    return tree, name


def _kind_of(key: str, source: str) -> tuple[str, Any]:
    """Return the part of params.yaml that is read as one type and has the key in it, and that type."""
    from stages.common.devices import RuntimeParams
    from stages.editing.covariance import CovarianceParams
    from xledit.editing.methods import method_class
    from xledit.editing.targets import TargetSettings
    from xledit.models.loading import ModelParams

    method = ".".join(key.split(".")[:2])
    kinds = {
        LAYERS: tuple[int, ...],
        "covariance": CovarianceParams,
        "model": ModelParams,
        "runtime": RuntimeParams,
        "vectors": TargetSettings,
        **({method: method_class(method.removeprefix("methods."))} if method.startswith("methods.") else {}),
    }
    for part, kind in kinds.items():
        if key == part or key.startswith(f"{part}."):
            return part, kind
    raise ValueError(f"{source}: params.{key}: is not about the model; an overlay may set {', '.join(kinds)} and methods")


def _listing() -> Iterator[tuple[str, ...]]:
    yield "name", "basis", "model", "layers", "of"
    for name, path in overlays().items():
        found = load_overlay(path)
        layers = flat(found.params).get(LAYERS, "-")
        yield name, found.basis, found.model.hub, str(layers), str(found.model.num_layers)


def _show_all() -> None:
    typer.echo(aligned(list(_listing())))


def _check_all() -> None:
    tree, found = read_params(), overlays()
    for path in found.values():
        check(path, tree)
    typer.echo(f"{len(found)} overlays fit {PARAMS}")


def _apply(name: str) -> None:
    overlay = check(SETTINGS / f"{name}.yaml", read_params())
    changed = set_params(Path(), flat(overlay.params))
    typer.echo(f"{name}: for {overlay.model.hub}; {overlay.basis}: {overlay.source}")
    typer.echo("\n".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items()) or "nothing changed")
    typer.echo("model.name is as it was: set it, with model.files or model.revision, to the copy of the model that you have")


def main(
    name: Annotated[str, typer.Argument(help="a file of settings/, without .yaml")] = "",
    show: Annotated[bool, typer.Option("--list", help="name all overlays")] = False,
    everything: Annotated[bool, typer.Option("--check", help="check all overlays")] = False,
) -> None:
    """Do the one thing that is asked for."""
    asked: list[Callable[[], None]] = [
        action for wanted, action in ((show, _show_all), (everything, _check_all), (name, lambda: _apply(name))) if wanted
    ]
    if len(asked) != 1:
        raise ValueError("give the name of an overlay, --list or --check")
    asked[0]()


if __name__ == "__main__":
    run(main)
