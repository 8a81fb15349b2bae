"""The methods as tests ask them: from the folder that is their registry, so that a new one is asked every theorem by itself."""

from collections.abc import Mapping
from typing import TypeVar

from xledit.editing.locate import ClosedForm
from xledit.editing.method import Method
from xledit.editing.methods import NAMES, method_class
from xledit.editing.trained import Trained

Kind = TypeVar("Kind", bound=Method)


def classes(kind: type[Kind]) -> dict[str, type[Kind]]:
    """Every method of a kind, by its name in params.yaml."""
    return {name: found for name in NAMES if issubclass(found := method_class(name), kind)}


def with_settings(kind: type[Kind], shared: Mapping[str, object], own: Mapping[str, Mapping[str, object]]) -> dict[str, Kind]:
    """Every method of a kind with the ``shared`` settings that it has and its ``own``, otherwise with its defaults."""
    return {
        name: found(**{key: value for key, value in shared.items() if key in found.__struct_fields__} | dict(own.get(name, {})))
        for name, found in classes(kind).items()
    }


CLOSED_FORMS, TRAINED = classes(ClosedForm), classes(Trained)
