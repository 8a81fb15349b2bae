"""A model + parallel sentences -> how alike languages are in its states, layer by layer, beside their nulls; and the logit lens."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stages.common.devices import start_torch
from stages.common.runner import log, run, wrote
from xledit.families.describe import load_folder
from xledit.interpret.lens import lens
from xledit.interpret.parallel import Parallel, of_files, of_probes, told_everywhere
from xledit.interpret.representations import chance_within, compare, sentence_states
from xledit.interpret.results import Pooling, Representations
from xledit.interpret.unification import unification
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training.catalog import NATURAL
from xledit.training.probes import FactProbe


class InterpretParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.interpret`` section of params.yaml.

    ``sentences``: null for the world's facts, or a text file for each language with parallel lines, as FLORES-200 has them; ``most`` of
    them at most, of the world's evenly by relation. ``max_tokens`` bounds a batch: memory and speed, not results. For neurons: the most
    important ones, a share of ``overlap_share``, are compared between languages; ``ablation_units`` of each kind of component are really
    switched off, over ``ablation_sentences`` of each language, and languages' own neurons over ``causal_sentences``. More units or
    sentences: more precise, and slower.
    """

    sentences: dict[str, str] | None
    most: int
    max_tokens: int
    overlap_share: float
    ablation_units: int
    ablation_sentences: int
    causal_sentences: int

    def __post_init__(self) -> None:
        if not 0 < self.overlap_share < 1:
            raise ValueError(f"overlap_share is {self.overlap_share}; it is a share, between 0 and 1")
        for name, least in (("most", 4), ("max_tokens", 4), ("ablation_units", 2), ("ablation_sentences", 1), ("causal_sentences", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


def main(
    name: Annotated[str, typer.Option(help="embedded, a local folder or a .gguf")],
    files: Annotated[str, typer.Option(help="the local path behind the name")],
    probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact")],
    out: Annotated[Path, typer.Option()],
) -> None:
    runtime, params = start_torch(), section("tranyu.interpret", InterpretParams)
    asked = read_json(probes, list[FactProbe])
    parallel = parallel_sentences(params, asked)
    folder, _source = resolve(ModelParams(name=name, files=files, revision=None, dtype="float32", family="known"))
    model, tokenizer = load_folder(folder, "float32", runtime.device)
    states = {code: sentence_states(model, tokenizer, lines, params.max_tokens) for code, lines in parallel.sentences.items()}
    log.info("%s: %d sentences in %d languages read", name, len(parallel.groups), len(parallel.languages))
    poolings: tuple[Pooling, ...] = ("last", "mean")
    seed = section("seed", int)
    languages = tuple(code for code in section("tranyu.run.languages", tuple[str, ...]) if code in NATURAL)
    num_prompts, read_off = lens(model, tokenizer, told_everywhere(asked), languages, params.max_tokens)
    analysis = Representations(
        name=name,
        languages=parallel.languages,
        num_sentences=len(parallel.groups),
        chance=1 / len(parallel.groups),
        chance_within=chance_within(parallel.groups),
        depths=[
            row for pooling in poolings for row in compare({code: kept[pooling] for code, kept in states.items()}, parallel, pooling, seed)
        ],
        unification=unification(model, tokenizer, asked, languages, params.max_tokens),
        num_prompts=num_prompts,
        lens=read_off,
    )
    write_json(out, analysis)
    wrote(out)


def parallel_sentences(params: InterpretParams, probes: list[FactProbe]) -> Parallel:
    """Return the sentences that the settings name: files, or the world's facts in the natural languages of the run."""
    if params.sentences is not None:
        return of_files(params.sentences, params.most)
    return of_probes(probes, [code for code in section("tranyu.run.languages", tuple[str, ...]) if code in NATURAL], params.most)


if __name__ == "__main__":
    run(main)
