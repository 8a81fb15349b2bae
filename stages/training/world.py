"""The embedded corpus: invented persons, facts of Unicode CLDR, messages of Django, source code of installed packages; no download.

Writes JSON lines per language (``text``, ``id``, ``metadata``): in ``people`` what is told of the persons, which is not to be
de-duplicated, in ``texts`` the rest. Beside them sentences and questions that ask about the persons, facts to edit, and for the
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
from xledit.training import cldr, messages, programs
from xledit.training.cldr import CldrParams
from xledit.training.people import People, PeopleParams


class WorldParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.world`` section of params.yaml: the persons, CLDR's facts, and what else the corpus holds.

    ``message_documents`` is how many documents of Django's messages each of CLDR's languages has at most (20 messages each);
    ``code_bytes`` is how much source code of each programming language is taken at most. ``probes_per_group`` facts at most of each
    relation, place of telling and kind of name are asked about. ``edit_languages`` are those that ``num_edits`` facts are made ready to be
    edited in, all about persons whose names are spelt alike; their held-out texts leave these facts out.
    """

    people: PeopleParams
    cldr: CldrParams
    message_documents: int
    code_bytes: int
    probes_per_group: int
    edit_languages: tuple[str, ...]
    num_edits: int


def main(
    out: Annotated[Path, typer.Option(help="folder for corpus files per language")],
    out_probes: Annotated[Path, typer.Option(help="JSON: sentences that state facts, in every language of the persons")],
    out_texts: Annotated[Path, typer.Option(help="folder for texts, a line each")],
    out_questions: Annotated[Path, typer.Option(help="JSON: questions about facts, to tune a model with and to ask it")],
    out_edits: Annotated[Path, typer.Option(help="JSON: facts to edit, for the stage prepare")],
) -> None:
    params, seed = section("tranyu.world", WorldParams), section("seed", int)
    world = People(params.people, seed)
    for code in params.people.languages:
        write_lines(out / "people" / f"{code}.jsonl", world.documents(code))
    for code in params.cldr.languages:
        true = cldr.documents(code, params.cldr, seed)
        write_lines(out / "texts" / f"{code}.jsonl", [*true, *islice(messages.documents(code), params.message_documents)])
    for code in programs.FOUND_IN:
        if documents := list(programs.documents(code, params.code_bytes)):
            write_lines(out / "texts" / f"{code}.jsonl", documents)
    edits = world.edits(params.edit_languages, params.num_edits)
    edited = {fact.fact_id for fact in edits}
    again = params.people.tellings
    for code in params.edit_languages:
        write_text(out_texts / f"{code}.txt", world.documents(code, range(2)))
        write_text(out_texts / "heldout" / f"{code}.txt", world.documents(code, range(again, again + 1), edited))
    write_json(out_probes, [probe for code in params.people.languages for probe in world.probes(code, params.probes_per_group)])
    write_json(out_questions, world.questions(params.probes_per_group))
    write_json(out_edits, edits)
    log.info("%d facts of %d persons in %d languages", len(world.facts), len(world.persons), len(params.people.languages))
    wrote(out_probes, out_questions, out_edits)


def write_lines(path: Path, documents: Iterable[dict]) -> None:
    """Write documents as JSON lines."""
    write_bytes(path, b"".join(msgspec.json.encode(document) + b"\n" for document in documents))


def write_text(path: Path, documents: Iterable[dict]) -> None:
    """Write the documents' texts, a line each."""
    write_bytes(path, "".join(document["text"].replace("\n", " ") + "\n" for document in documents).encode())


if __name__ == "__main__":
    run(main)
