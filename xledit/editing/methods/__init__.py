"""The methods of editing, one file each: the folder is the registry. A method's name in params.yaml is the name of its file.

To add a method, add a file with one subclass of ``Method`` that gives its paper, its equation and its settings with defaults.
A cell of the stage ``apply`` depends on its own method's file alone, so no file here may import another: what methods share
lies beside this folder.
"""

import importlib
from functools import cache
from pathlib import Path

from xledit.editing.method import Method

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


@cache
def method_class(name: str) -> type[Method]:
    """Return the class of a method, the one that its file defines. Raises ValueError that lists the names when there is no such file."""
    if name not in NAMES:
        raise ValueError(f"{name!r} is no method; known: {', '.join(NAMES)}. To add one, add xledit/editing/methods/{{name}}.py")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Method)]
    own_classes = [candidate for candidate in classes if candidate.__module__ == module.__name__]
    if len(own_classes) != 1:
        raise ValueError(f"{module.__name__}: {len(own_classes)} classes of methods; a file holds one")
    return own_classes[0]
