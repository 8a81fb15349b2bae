"""Model and text -> the second moment of the keys, one file per language with all edited layers in it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stages.common.loaded import load_model
from stages.common.runner import log, progress, run, wrote
from xledit.corpus import read_texts
from xledit.editing.artifacts import save_second_moments
from xledit.editing.second_moment import second_moments
from xledit.models.family import check_layers, layers_of
from xledit.params import section


class CovarianceParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``covariance`` section of params.yaml.

    ``corpus`` gives a text source per language: a UTF-8 text file (one passage a line) or ``datasets:NAME`` with an
    optional ``@CONFIG`` (read by the datasets library). ``files`` is the folder of such files, for DVC to watch. The first
    ``max_tokens`` tokens count, read in windows of ``window``.
    """

    corpus: dict[str, str]
    files: str
    max_tokens: int
    window: int


def main(model_manifest: Annotated[Path, typer.Option()], out: Annotated[Path, typer.Option(help="folder")]) -> None:
    params = section("covariance", CovarianceParams)
    layers = section("edit.layers", tuple[int, ...])
    languages = section("grid.languages", tuple[str, ...])
    texts = {code: read_texts(code, params.corpus) for code in languages}
    model, tokenizer = load_model(model_manifest)
    check_layers(layers, len(layers_of(model)))
    for code in languages:
        log.info("%s: %d passages from %s", code, len(texts[code]), params.corpus[code])
        with progress(params.max_tokens, "keys") as step:
            moments = second_moments(model, tokenizer, texts[code], layers, params.max_tokens, params.window, step)
        save_second_moments(out / f"{code}.safetensors", moments)
        wrote(out / f"{code}.safetensors")


if __name__ == "__main__":
    run(main)
