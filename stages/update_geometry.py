"""Updates of one method -> how alike they are across languages and how additive, layer by layer, beside the nulls.

The updates of the run itself (``run``) are compared as they were applied. Their nulls need updates that nobody applied:
halves of the facts, and the same facts in other words. Those are solved here from the saved vectors, with the keys and
values of the unedited model; in the lowest edited layer that is the very system that ``apply`` solves, in higher layers
it leaves out what the layers below have changed. Methods that store no v* at the subject have no such nulls.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.runner import log, run, wrote
from xledit.editing.artifacts import SavedVectors, load_edit, load_moments, load_vectors
from xledit.editing.methods import AnyMethod
from xledit.editing.second_moment import SecondMoment, pooled
from xledit.editing.solvers import Facts, LayerUpdate, Method, Past, solve_in_turn
from xledit.geometry.updates import Factors, alikeness, chance_jaccard, random_angles
from xledit.params import section
from xledit.results import Alikeness, UpdateGeometry
from xledit.storage import write_json

MAX_RANK = 10  # the paper's number of singular directions, where an update has as many
RANDOM_DRAWS = 20


def main(
    method: Annotated[str, typer.Option()],
    artifacts: Annotated[Path, typer.Option(help="folder with vectors, rewordings, covariance and updates")],
    out: Annotated[Path, typer.Option()],
) -> None:
    torch.set_num_threads(section("runtime.threads", int))
    chosen: AnyMethod = section(f"methods.{method}", AnyMethod)  # pyright: ignore[reportArgumentType]
    languages, edits = section("grid.languages", tuple[str, ...]), section("grid.edits", tuple[str, ...])
    generator = torch.Generator().manual_seed(section("seed", int))
    vectors = {code: load_vectors(artifacts / "vectors" / f"{code}.safetensors") for code in languages}
    reworded = {code: load_vectors(artifacts / "rewordings" / f"{code}.safetensors") for code in languages}
    moments = [load_moments(artifacts / "covariance" / f"{code}.safetensors") for code in languages]
    updates = {edit: load_edit(artifacts / "updates" / f"{method}-{edit}.safetensors").updates for edit in edits}
    rows = []
    for layer in vectors[languages[0]].memories:
        pairs = run_pairs(updates, languages, layer)
        if isinstance(chosen, Method) and not chosen.search.answer:
            pairs |= null_pairs(vectors, reworded, layer, chosen, pooled([moment[layer] for moment in moments]))
        if not pairs:
            continue
        memory = vectors[languages[0]].memories[layer]
        rank = min(pair.rank for pair in pairs.values())
        rows.append(
            UpdateGeometry(
                layer=layer,
                method=method,
                pairs=pairs,
                random_key_angle=random_angles(memory.keys.shape[1], rank, RANDOM_DRAWS, generator)[0],
                random_value_angle=random_angles(memory.values.shape[1], rank, RANDOM_DRAWS, generator)[0],
                chance_neurons=chance_jaccard(memory.keys.shape[1]),
            )
        )
    write_json(out, rows)
    wrote(out)


def run_pairs(updates: dict[str, dict[int, LayerUpdate]], languages: Sequence[str], layer: int) -> dict[str, Alikeness]:
    """Compare the updates of this run: each pair of languages, against the mixed update."""
    factors = {edit: Factors(update[layer].left, update[layer].right) for edit, update in updates.items() if layer in update}
    if "mixed" not in factors:
        return {}
    return {
        f"run: {a} and {b}, same facts": alikeness(factors[a], factors[b], factors["mixed"], MAX_RANK)
        for a, b in itertools.combinations(languages, 2)
        if a in factors and b in factors
    }


def null_pairs(
    vectors: dict[str, SavedVectors], reworded: dict[str, SavedVectors], layer: int, method: Method, old_keys: SecondMoment
) -> dict[str, Alikeness]:
    """Compare updates for half of the facts each, and for the same facts in other words."""
    solve = method.solver(old_keys)

    def solved(*parts: tuple[SavedVectors, Sequence[int]]) -> Factors:
        facts = Facts.joined([part.facts(layer).take(list(places)) for part, places in parts])
        update = solve_in_turn(solve, facts, Past.none(facts.keys.shape[1], facts.values.shape[1]), method.most_facts)
        return Factors(update.left, update.right)

    def add(name: str, left: tuple[SavedVectors, Sequence[int]], right: tuple[SavedVectors, Sequence[int]]) -> None:
        try:
            pairs[name] = alikeness(solved(left), solved(right), solved(left, right), MAX_RANK)
        except ValueError as error:  # an exact fit of two wordings with one key does not exist
            log.warning("layer %d: %s: not compared: %s", layer, name, error)

    pairs: dict[str, Alikeness] = {}
    # alternating facts, so that both halves have all relations
    num_facts = len(next(iter(vectors.values())).fact_ids)
    even, odd = range(0, num_facts, 2), range(1, num_facts, 2)
    for a, b in itertools.combinations(vectors, 2):
        add(f"half: {a} and {b}, same facts", (vectors[a], even), (vectors[b], even))
        add(f"half: {a} and {b}, different facts", (vectors[a], even), (vectors[b], odd))
    for code, found in vectors.items():
        add(f"half: {code} and {code}, different facts", (found, even), (found, odd))
        if reworded[code].fact_ids:
            places = [found.fact_ids.index(fact_id) for fact_id in reworded[code].fact_ids]
            add(f"half: {code} and {code}, same facts in other words", (found, places), (reworded[code], range(len(places))))
    return pairs


if __name__ == "__main__":
    run(main)
