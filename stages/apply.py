"""Edit vectors and second moments -> one low-rank update per edited layer, by one method, for one edit.

``--edit`` is a language, or ``mixed``: the facts of all languages together, on the vectors that each already has.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.loaded import load_model
from stages.runner import log, run, wrote
from xledit.editing.apply import solve_layers
from xledit.editing.artifacts import load_moments, load_vectors, save_updates
from xledit.editing.second_moment import pooled
from xledit.editing.solvers import Method
from xledit.params import section
from xledit.records import EditRequest
from xledit.storage import read_json

MIXED = "mixed"


def main(
    method: Annotated[str, typer.Option()],
    edit: Annotated[str, typer.Option()],
    model_manifest: Annotated[Path, typer.Option()],
    artifacts: Annotated[Path, typer.Option(help="folder with requests, vectors and covariance by language")],
    out: Annotated[Path, typer.Option()],
) -> None:
    chosen: Method = section(f"methods.{method}", Method)  # pyright: ignore[reportArgumentType]
    num_prefixes = section("vectors.num_prefixes", int)
    known = section("grid.languages", tuple[str, ...])
    if edit not in (*known, MIXED):
        raise ValueError(f"grid.edits: {edit!r} is none of {', '.join(known)}, {MIXED}")
    languages = known if edit == MIXED else (edit,)
    moments = [load_moments(artifacts / "covariance" / f"{code}.safetensors") for code in known]
    vectors = [load_vectors(artifacts / "vectors" / f"{code}.safetensors") for code in languages]
    requests = [request for code in languages for request in read_json(artifacts / "requests" / f"{code}.json", list[EditRequest])]
    layers = tuple(vectors[0].targets)
    model, tokenizer = load_model(model_manifest)
    updates = solve_layers(
        model,
        tokenizer,
        requests,
        {layer: torch.cat([found.targets[layer] for found in vectors]) for layer in layers},
        {layer: pooled([moment[layer] for moment in moments]) for layer in layers},
        chosen,
        num_prefixes,
        max_tokens=4096,
    )
    for layer, update in updates.items():
        log.info("layer %d: norm of the update %.3f, rank at most %d", layer, update.dense().norm(), update.left.shape[1])
    save_updates(out, method, edit, updates)
    wrote(out)


if __name__ == "__main__":
    run(main)
