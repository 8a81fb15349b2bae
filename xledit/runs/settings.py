"""params.yaml as a tree: read, flattened to dotted keys, changed in place with comments and order kept, checked against its types."""

import copy
import io
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from xledit.params import PARAMS
from xledit.storage import write_bytes


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``grid`` section of params.yaml: the cells of dvc.yaml, which stages read one by one."""

    languages: tuple[str, ...]
    edits: tuple[str, ...]
    methods: tuple[str, ...]
    direct: tuple[str, ...]
    vectors: int | None
    rewordings: int

    @property
    def cells(self) -> list[str]:
        """The names of the edited models."""
        return list(self.summaries)

    @property
    def summaries(self) -> dict[str, str]:
        """The stage that summarises each cell."""
        groups = {"summarise": self.methods, "summarise_direct": self.direct}
        return {f"{method}-{edit}": stage for stage, methods in groups.items() for method in methods for edit in self.edits}


# by section of params.yaml that is read as one type: module and name of the type
KINDS = {
    "seed": "builtins:int",
    "runtime": "stages.common.devices:RuntimeParams",
    "model": "xledit.models.loading:ModelParams",
    "data": "stages.editing.prepare:DataParams",
    "grid": "xledit.runs.settings:Grid",
    "edit": "stages.editing.apply:EditParams",
    "watch": "xledit.evaluation.watch:WatchParams",
    "covariance": "stages.editing.covariance:CovarianceParams",
    "vectors": "xledit.editing.targets:TargetSettings",
    "evaluate": "stages.editing.evaluate:EvaluateParams",
    "summary": "xledit.evaluation.summary:SummaryParams",
    "tranyu.world": "stages.training.world:WorldParams",
    "tranyu.sources": "stages.training.corpus:Sources",
    "tranyu.corpus": "xledit.training.corpus:CorpusParams",
    "tranyu.tokenizer": "xledit.training.bpe:TokenizerParams",
    "tranyu.reference": "stages.training.tokenizer:ReferenceParams",
    "tranyu.mixture": "xledit.training.mixture:Mixture",
    "tranyu.architecture": "xledit.training.architecture:ArchitectureParams",
    "tranyu.run": "stages.training.pretrain:RunParams",
    "tranyu.pretrain": "xledit.training.pretrain:PretrainParams",
    "tranyu.sft": "xledit.training.tuning_params:SftParams",
    "tranyu.dpo": "xledit.training.tuning_params:DpoParams",
    "tranyu.recall": "stages.training.recall:RecallParams",
    "tranyu.interpret": "stages.training.analysis:InterpretParams",
    "tranyu.benchmark": "xledit.training.benchmark:BenchmarkParams",
    "tranyu.crossing": "xledit.crossing.settings:CrossingParams",
    "tranyu.crossing_balance": "xledit.crossing.results:Grid",
    "tranyu.crossing_grid": "xledit.crossing.results:Grid",
}


def kind_of(key: str) -> tuple[str, Any]:
    """Return the section of params.yaml that has a dotted key in it (a key of KINDS, or methods.NAME), and its type.

    Raises KeyError when no section has the key, ImportError when the type's module needs an extra that is not installed.
    """
    if key.startswith("methods."):
        from xledit.editing.methods import method_class

        name = key.split(".")[1]
        return f"methods.{name}", method_class(name)
    part = next(part for part in (key, ".".join(key.split(".")[:2]), key.split(".")[0], None) if part in KINDS or part is None)
    if part is None:
        raise KeyError(key)
    module, _, name = KINDS[part].partition(":")
    return part, getattr(import_module(module), name)


def check_values(values: Mapping[str, Any], tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a copy of the tree of params.yaml with settings by dotted key set in it, checked against their types.

    Raises ValueError with ``source`` and the key when one is not in params.yaml or does not convert.
    """
    merged = copy.deepcopy(dict(tree))
    for key, value in copy.deepcopy(dict(values)).items():
        section, name = place(merged, key, f"{source}: {key}: params.yaml has no such setting")
        section[name] = value
    for key in values:
        part = key
        try:
            part, kind = kind_of(key)
            section, name = place(merged, part, f"{source}: {part}")
            msgspec.convert(section[name], kind)
        except KeyError as error:
            raise ValueError(
                f"{source}: {key}: name one section or setting; known sections: {', '.join(KINDS)} and methods.NAME"
            ) from error
        except ImportError as error:
            raise ValueError(f"{source}: {key}: {error.name} is not installed, which reads it: `pip install -e .[training]`") from error
        except msgspec.ValidationError as error:
            reason, _, where = str(error).partition(" - at `$")
            raise ValueError(f"{source}: {part}{where.rstrip('`')}: {reason}") from error
    return merged


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises ValueError with the path when it is none, FileNotFoundError when it is not there."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file in UTF-8: {error}") from error


def read_params() -> dict[str, Any]:
    """Return the tree of params.yaml in the current folder. Raises ValueError when it is not there."""
    try:
        return read_yaml(PARAMS)
    except FileNotFoundError as error:
        raise ValueError(f"{PARAMS}: not found; run from the project's root") from error


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return a tree of settings as values by dotted key."""
    values = {}
    for name, value in tree.items():
        values |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) and value else {f"{above}{name}": value}
    return values


def set_params(root: Path, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Set settings by dotted key in ``root``'s params.yaml, whose comments and order stay. Returns old and new value of changed ones.

    Raises ValueError, with the file untouched, when a key is not there.
    """
    path = root / PARAMS
    yaml = YAML()
    yaml.width = 2**16
    yaml.Representer = _Representer
    tree = yaml.load(path.read_text(encoding="utf-8"))
    changed = {}
    for key, value in values.items():
        section, name = place(tree, key, f"{path}: {key}: no such setting")
        if section[name] != value:
            changed[key] = (section[name], value)
        section[name] = _in_line(value)
    text = io.StringIO()
    yaml.dump(tree, text)
    write_bytes(path, text.getvalue().encode())
    return changed


def place(tree: Any, key: str, complaint: str) -> tuple[Any, str]:
    """Return the section that a dotted key lies in, and its name there. Raises ValueError with the complaint and what there is."""
    *above, name = key.split(".")
    for part in above:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    if not isinstance(tree, Mapping) or name not in tree:
        where = ".".join(above) or "it"
        raise ValueError(
            f"{complaint}; {f'{where} has: ' + ', '.join(map(str, tree)) if isinstance(tree, Mapping) else f'it has no {where}'}"
        )
    return tree, name


class _Representer(RoundTripRepresenter):
    """ruamel leaves null empty."""


_Representer.add_representer(type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"))


def _in_line(value: Any) -> Any:
    """Return a list so that it is written as ``[a, b]``; anything else as it is."""
    if not isinstance(value, list | tuple):
        return value
    row = CommentedSeq(map(_in_line, value))
    row.fa.set_flow_style()
    return row
