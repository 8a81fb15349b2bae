"""The embedded corpus: facts of Unicode CLDR in words, messages of Django, source code of installed packages; no download.

Writes one JSON lines file per language (``text``, ``id``, ``metadata``), the sentences that ask for its facts, facts to edit, and for the
languages they are edited in plain texts: of the corpus, for the second moment of keys, and held out, to watch the model by.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stages.common.runner import log, run, wrote
from xledit.params import section
from xledit.storage import write_bytes, write_json
from xledit.training import messages, programs
from xledit.training.world import World, WorldParams


class EmbeddedParams(WorldParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.world`` section of params.yaml: the facts (``WorldParams``), and what else the corpus holds.

    ``message_documents`` is how many documents of Django's messages each language has at most (20 messages each);
    ``code_bytes`` is how much source code of each programming language is taken at most. ``edit_languages`` are those that
    ``num_edits`` facts are made ready to be edited in; their held-out texts tell of other facts, which an edit should leave alone.
    """

    message_documents: int
    code_bytes: int
    edit_languages: tuple[str, ...]
    num_edits: int


def main(
    out: Annotated[Path, typer.Option(help="folder for a corpus file per language")],
    out_probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact, in every language")],
    out_texts: Annotated[Path, typer.Option(help="folder for texts, a line each")],
    out_edits: Annotated[Path, typer.Option(help="JSON: facts to edit, for the stage prepare")],
) -> None:
    params = section("tranyu.world", EmbeddedParams)
    world = World(params, section("seed", int))
    for code in params.languages:
        write_lines(out / f"{code}.jsonl", [*world.documents(code), *islice(messages.documents(code), params.message_documents)])
    for code in programs.FOUND_IN:
        documents = list(programs.documents(code, params.code_bytes))
        if documents:
            write_lines(out / f"{code}.jsonl", documents)
    edits = world.edits(params.edit_languages, params.num_edits)
    for code in params.edit_languages:
        write_text(out_texts / f"{code}.txt", world.documents(code))
        write_text(out_texts / "heldout" / f"{code}.txt", world.held_out(code, {fact.fact_id for fact in edits}))
    write_json(out_probes, [probe for code in params.languages for probe in world.probes(code)])
    write_json(out_edits, edits)
    log.info("%d facts in %d languages", len(world.facts), len(params.languages))
    wrote(out_probes, out_edits)


def write_lines(path: Path, documents: Iterable[dict]) -> None:
    """Write documents as JSON lines."""
    write_bytes(path, b"".join(msgspec.json.encode(document) + b"\n" for document in documents))


def write_text(path: Path, documents: Iterable[dict]) -> None:
    """Write the documents' texts, a line each."""
    write_bytes(path, "".join(document["text"] + "\n" for document in documents).encode())


if __name__ == "__main__":
    run(main)
