"""Sources -> one filtered, de-duplicated file per language, and what each step kept and dropped."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from loguru import logger

from stages.common.runner import log, run, wrote
from xledit.params import section
from xledit.storage import write_json
from xledit.training.corpus import CorpusParams, Jsonl, Source, build


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.sources`` section of params.yaml: a row per source; ``embedded`` adds those that the stage ``world`` wrote.

    ``files`` is a file or folder that DVC watches: keep your own sources there, or a change to them is not noticed.
    """

    embedded: bool
    files: str
    rows: tuple[Source, ...]


def main(
    embedded: Annotated[Path, typer.Option(help="folder with people and texts, a JSON lines file per language in each")],
    work: Annotated[Path, typer.Option(help="folder for what is done in part")],
    out: Annotated[Path, typer.Option(help="folder for a file per language")],
    out_counts: Annotated[Path, typer.Option(help="JSON: counts by language and step")],
) -> None:
    logger.disable("datatrove")  # a page for each of five steps of each language
    sources = section("tranyu.sources", Sources)
    files = sorted(embedded.glob("*/*.jsonl")) if sources.embedded else []
    own = [Jsonl(language=path.stem, path=str(path), deduplicate=path.parent.name != "people") for path in files]
    counts = build([*own, *sources.rows], section("tranyu.corpus", CorpusParams), out, work)
    write_json(out_counts, counts)
    for code, steps in counts.languages.items():
        log.info("%s: %d documents", code, steps[-1].documents)
    wrote(out_counts)


if __name__ == "__main__":
    run(main)
