"""Edit vectors of two languages -> how alike their keys and their value changes are, layer by layer, beside the nulls."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from stages.runner import run, wrote
from xledit.editing.artifacts import SavedVectors, load_vectors
from xledit.geometry.vectors import likeness, spread
from xledit.params import section
from xledit.results import VectorGeometry
from xledit.storage import write_json


def main(
    vectors: Annotated[Path, typer.Option(help="folder")],
    rewordings: Annotated[Path, typer.Option(help="folder")],
    out: Annotated[Path, typer.Option()],
) -> None:
    languages = section("grid.languages", tuple[str, ...])
    found = {code: load_vectors(vectors / f"{code}.safetensors") for code in languages}
    reworded = {code: load_vectors(rewordings / f"{code}.safetensors") for code in languages}
    rows = [compare(layer, what, found, reworded) for layer in next(iter(found.values())).memories for what in ("keys", "deltas")]
    write_json(out, rows)
    wrote(out)


def compare(layer: int, what: str, found: dict[str, SavedVectors], reworded: dict[str, SavedVectors]) -> VectorGeometry:
    def of(vectors: SavedVectors):
        return vectors.memories[layer].keys if what == "keys" else vectors.deltas(layer)

    across = {f"{a}-{b}": likeness(of(found[a]), of(found[b])) for a, b in itertools.combinations(found, 2)}
    same_words = {}
    for code, vectors in found.items():
        places = [vectors.fact_ids.index(fact_id) for fact_id in reworded[code].fact_ids]
        if len(places) >= 3:
            same_words[code] = likeness(of(vectors)[places], of(reworded[code]))
    return VectorGeometry(
        layer=layer,
        what=what,
        across=across,
        reworded=same_words,
        within={code: spread(of(vectors)) for code, vectors in found.items()},
        random=of(next(iter(found.values()))).shape[1] ** -0.5,
    )


if __name__ == "__main__":
    run(main)
