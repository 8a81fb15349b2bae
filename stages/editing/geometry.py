"""Edit vectors of the languages -> how alike their keys and their value changes are, layer by layer, beside the nulls."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import run, wrote
from xledit.editing.artifacts import SavedVectors, load_languages
from xledit.geometry.results import VectorGeometry
from xledit.geometry.vectors import likeness, spread
from xledit.params import section
from xledit.storage import write_json


def main(
    vectors: Annotated[Path, typer.Option(help="folder")],
    reworded: Annotated[Path, typer.Option(help="folder")],
    out: Annotated[Path, typer.Option()],
) -> None:
    languages = section("grid.languages", tuple[str, ...])
    saved, others = load_languages(vectors, languages), load_languages(reworded, languages)
    rows = [compare(layer, what, saved, others) for layer in next(iter(saved.values())).memories for what in ("keys", "deltas")]
    write_json(out, rows)
    wrote(out)


def compare(layer: int, what: str, saved: dict[str, SavedVectors], reworded: dict[str, SavedVectors]) -> VectorGeometry:
    def of(vectors: SavedVectors):
        return vectors.memories[layer].keys if what == "keys" else vectors.deltas(layer)

    facts = next(iter(saved.values())).fact_ids
    across = {
        f"{a}-{b}": likeness(of(saved[a].of(facts, f"geometry of {a!r}")), of(saved[b].of(facts, f"geometry of {b!r}")))
        for a, b in itertools.combinations(saved, 2)
    }
    same_words = {
        code: likeness(of(vectors.of(reworded[code].fact_ids, f"rewordings in {code!r}")), of(reworded[code]))
        for code, vectors in saved.items()
        if len(reworded[code].fact_ids) >= 3
    }
    return VectorGeometry(
        layer=layer,
        what=what,
        across=across,
        reworded=same_words,
        within={code: spread(of(vectors)) for code, vectors in saved.items()},
        random=of(next(iter(saved.values()))).shape[1] ** -0.5,
    )


if __name__ == "__main__":
    run(main)
