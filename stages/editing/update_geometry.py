"""Updates of one method -> how alike they are across languages and how additive, layer by layer, beside the nulls.

The updates of the run itself (``run``) are compared as they were applied. Their nulls need updates that were never applied: for halves of
the facts, and for the same facts in other words. These are solved here from the saved vectors, with the keys and values of the unedited
model. In the lowest edited layer that is exactly the system that ``apply`` solves; in higher layers it ignores the changes of the layers
below. Methods that do not store v* at the subject have no such nulls.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.common.runner import log, run, wrote
from xledit.editing.artifacts import SavedVectors, load_edit, load_languages, load_second_moments
from xledit.editing.methods import method_class
from xledit.editing.tensors import Facts, LayerUpdate, SecondMoment
from xledit.geometry.results import Alikeness, UpdateGeometry
from xledit.geometry.updates import Factors, alikeness, chance_jaccard, random_angles
from xledit.params import section
from xledit.storage import write_json

MAX_RANK = 10  # the paper's number of singular directions, where an update has as many
RANDOM_DRAWS = 20
Vectors = dict[str, SavedVectors]
Solve = Callable[[Facts], LayerUpdate]


def main(
    method: Annotated[str, typer.Option(help="a file of xledit/editing/methods, without .py")],
    updates: Annotated[Path, typer.Option(help="folder, a file per edit")],
    out: Annotated[Path, typer.Option()],
    vectors: Annotated[Path | None, typer.Option(help="folder, a file per language; without it there are no nulls")] = None,
    reworded: Annotated[Path | None, typer.Option(help="folder, a file per language")] = None,
    covariance: Annotated[Path | None, typer.Option(help="folder, a file per language")] = None,
) -> None:
    torch.set_num_threads(section("runtime.threads", int))
    chosen = section(f"methods.{method}", method_class(method))
    languages, edits = section("grid.languages", tuple[str, ...]), section("grid.edits", tuple[str, ...])
    generator = torch.Generator().manual_seed(section("seed", int))
    made = {edit: load_edit(updates / f"{edit}.safetensors").updates for edit in edits}
    pairs = {layer: run_pairs(made, languages, layer) for layer in sorted({layer for update in made.values() for layer in update})}
    if vectors and reworded and covariance:
        saved, others = load_languages(vectors, languages), load_languages(reworded, languages)
        moments = [load_second_moments(covariance / f"{code}.safetensors") for code in languages]
        for layer in pairs:
            solve = chosen.solve_unedited(SecondMoment.pooled([moment[layer] for moment in moments]))
            if solve is not None:
                pairs[layer] |= null_pairs(saved, others, layer, solve)
    rows = []
    for layer, compared in pairs.items():
        if not compared:
            continue
        update = next(update[layer] for update in made.values() if layer in update)
        d_out, d_in = update.left.shape[0], update.right.shape[1]
        rank = min(pair.rank for pair in compared.values())
        rows.append(
            UpdateGeometry(
                layer=layer,
                method=method,
                pairs=compared,
                random_key_angle=random_angles(d_in, rank, RANDOM_DRAWS, generator)[0],
                random_value_angle=random_angles(d_out, rank, RANDOM_DRAWS, generator)[0],
                chance_neurons=chance_jaccard(d_in),
            )
        )
    write_json(out, rows)
    wrote(out)


def run_pairs(made: dict[str, dict[int, LayerUpdate]], languages: Sequence[str], layer: int) -> dict[str, Alikeness]:
    """Return the comparisons of this run's updates: one for each pair of languages.

    With two languages the ``mixed`` update, if there is one, is compared with the sum of the two.
    """
    factors = {edit: Factors(update[layer].left, update[layer].right) for edit, update in made.items() if layer in update}
    both = factors.get("mixed") if len(languages) == 2 else None
    return {
        f"run: {a} and {b}, same facts": alikeness(factors[a], factors[b], both, MAX_RANK)
        for a, b in itertools.combinations(languages, 2)
        if a in factors and b in factors
    }


def null_pairs(vectors: Vectors, reworded: Vectors, layer: int, solve: Solve) -> dict[str, Alikeness]:
    """Return the comparisons of updates for half of the facts each, and of updates for the same facts in other words."""

    def solved(*parts: SavedVectors) -> Factors:
        update = solve(Facts.joined([part.facts(layer) for part in parts]))
        return Factors(update.left, update.right)

    def add(name: str, left: SavedVectors, right: SavedVectors) -> None:
        try:
            pairs[name] = alikeness(solved(left), solved(right), solved(left, right), MAX_RANK)
        except ValueError as error:  # an exact fit of two wordings with one key does not exist
            log.warning("layer %d: %s: not compared: %s", layer, name, error)

    pairs: dict[str, Alikeness] = {}
    fact_ids = next(iter(vectors.values())).fact_ids
    # alternating facts, so that both halves have all relations
    even, odd = (
        {code: saved.of(half, f"geometry of {code!r}") for code, saved in vectors.items()} for half in (fact_ids[::2], fact_ids[1::2])
    )
    for a, b in itertools.combinations(vectors, 2):
        add(f"half: {a} and {b}, same facts", even[a], even[b])
        add(f"half: {a} and {b}, different facts", even[a], odd[b])
    for code, saved in vectors.items():
        add(f"half: {code} and {code}, different facts", even[code], odd[code])
        if reworded[code].fact_ids:
            same = saved.of(reworded[code].fact_ids, f"rewordings in {code!r}")
            add(f"half: {code} and {code}, same facts in other words", same, reworded[code])
    return pairs


if __name__ == "__main__":
    run(main)
