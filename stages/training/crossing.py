"""One cell of the joint experiment: models trained from scratch, one per seed, asked at each checkpoint which facts and edits cross."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from stages.common.devices import start_torch
from stages.common.runner import log, run, wrote
from xledit.crossing.checkpoint import measure
from xledit.crossing.results import CellCrossing, Names, SeedCrossing
from xledit.crossing.settings import CrossingParams
from xledit.crossing.train import tokens_per_name, trained
from xledit.params import section
from xledit.storage import write_json
from xledit.training.people import People


def main(
    everywhere: Annotated[float, typer.Option(help="share of the facts that both languages tell")],
    english: Annotated[float, typer.Option(help="share of the tokens that are English")],
    names: Annotated[Names, typer.Option(help="how persons are named: whole, pieces or own")],
    out: Annotated[Path, typer.Option()],
) -> None:
    params = section("tranyu.crossing", CrossingParams)
    # models this small gain little from a second thread: each process has one, and a seed of its own
    with ProcessPoolExecutor(len(params.seeds), get_context("spawn")) as pool:
        futures = [pool.submit(one_seed, params, everywhere, english, names, seed) for seed in params.seeds]
        seeds = [future.result() for future in futures]
    write_json(out, CellCrossing(everywhere=everywhere, english=english, names=names, seeds=tuple(seeds)))
    wrote(out)


def one_seed(params: CrossingParams, everywhere: float, english: float, names: Names, seed: int) -> SeedCrossing:
    """Return what one model's checkpoints say."""
    start_torch()
    torch.set_num_threads(1)
    world, checkpoints = People(params.world(everywhere, names), seed), []
    num_parameters, per_name = 0, {}
    with trained(world, params, english, names, seed) as saved:
        for tokens, model, tokenizer in saved:
            checkpoints.append(measure(model, tokenizer, world, params, tokens, seed))
            num_parameters, per_name = model.num_parameters(), tokens_per_name(tokenizer, world)
            log.info("seed %d: %d tokens", seed, tokens)
    return SeedCrossing(seed=seed, num_parameters=num_parameters, tokens_per_name=per_name, checkpoints=tuple(checkpoints))


if __name__ == "__main__":
    run(main)
