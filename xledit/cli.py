"""`xledit`: runs by name, and what they left side by side. docs/runs.md has the idea; each command imports what it needs."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from stages.common.runner import readable_errors, wrote

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
facts = typer.Typer(no_args_is_help=True, help="The benchmark's facts: for people who judge them, and for other tools.")
app.add_typer(facts, name="facts")
Name = Annotated[str, typer.Argument(help="a file of runs/, without .yaml")]


@app.command("runs")
def list_runs() -> None:
    """List all runs: what each is, what its settings rest on, and whether its results are here."""
    from xledit.report.common.numbers import aligned
    from xledit.report.editing.runs import RECORD, RESULTS
    from xledit.runs import named

    rows = [["name", "results", "basis", "what"]]
    for name in named.names():
        run = named.read(name)
        rows.append([name, "kept" if (RESULTS / name / RECORD).exists() else "-", run.basis or "-", run.what])
    typer.echo(aligned(rows))


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="files of runs/, without .yaml")],
    jobs: Annotated[int, typer.Option(help="experiments at a time", min=1)] = 1,
    poll: Annotated[float, typer.Option(help="seconds between looks at the queue")] = 5.0,
) -> None:
    """Run through DVC's queue, beside the default run, and keep the results in results/NAME. A search tries and chooses."""
    from xledit.report.common.numbers import aligned
    from xledit.report.editing import runs, sentences, tables
    from xledit.runs.execute import execute

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for planned, search in execute(names, jobs, poll):
            if search:
                typer.echo(
                    f"{planned.name} chose {search.chosen}, by {search.rule}; `xledit use {planned.name}` writes it into params.yaml"
                )
            cells = runs.read(runs.RESULTS / planned.name).cells
            if cells:
                typer.echo("\n".join([aligned(tables.headline(cells)), *sentences.overall(cells)]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def use(name: Name) -> None:
    """Write a run's settings into params.yaml, comments and order kept; `git checkout params.yaml` leads back."""
    from xledit.report.common.numbers import aligned
    from xledit.runs import named, settings, sizes

    run, values = named.check(name, settings.read_params()), named.passed_on(name)
    changed = settings.set_params(Path(), values)
    typer.echo(f"{name}: {run.what}" + (f"; {run.basis}: {run.source}" if run.basis else ""))
    shown = [f"{key}: {old} -> {new}" if len(f"{old}{new}") <= 200 else f"{key}: changed" for key, (old, new) in changed.items()]
    typer.echo("\n".join(shown) or "nothing changed")
    if run.model and not {"model", "model.name"} & values.keys():
        typer.echo("model.name is as it was: set it, with model.files or model.revision, to the copy of the model that you have")
    if run.device:
        typer.echo(aligned(sizes.rows(run.device, settings.read_params())))


@app.command()
def check() -> None:
    """Hold every run against params.yaml, the types that read it and the facts of its model."""
    from xledit.params import PARAMS
    from xledit.runs import named, settings

    tree, all_names = settings.read_params(), named.names()
    for name in all_names:
        named.check(name, tree)
    typer.echo(f"{len(all_names)} runs fit {PARAMS}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="a folder of results/, or default for the run of params.yaml")],
    b: Annotated[str, typer.Argument(help="another")],
    everything: Annotated[bool, typer.Option("--all", help="all numbers, not the headline's and those that differ")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
) -> None:
    """Set two runs side by side; * marks a difference whose interval excludes 0."""
    from xledit.report.common.numbers import aligned
    from xledit.runs.compare import compare as compared
    from xledit.runs.compare import lines
    from xledit.runs.results import kept

    comparison = compared(kept(a), kept(b))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode())
        return
    head, rows = lines(comparison, everything)
    marked = sum(number.excludes_zero for number in comparison.differences)
    typer.echo(
        "\n".join([*head, "", aligned(rows), "", f"{marked} of {len(comparison.differences)} intervals exclude 0 (*). {comparison.method}"])
    )


@app.command()
def export(
    to: Annotated[Literal["clm_bench", "counterfact"], typer.Option(help="whose layout")],
    out: Annotated[Path, typer.Option(help="folder to write to")],
    artifacts: Annotated[Path, typer.Option(help="folder that `dvc repro prepare` wrote to")] = Path("artifacts"),
) -> None:
    """Write prepared facts in the layout of another tool."""
    from xledit.benchmark.prepared import read_facts, write_layout

    prepared = read_facts(*(artifacts / name for name in ("requests", "rewordings", "probes")))
    wrote(*write_layout(to, prepared, out))


@app.command()
def audit(
    folder: Annotated[Path, typer.Option(help="the benchmark's tables")] = Path("data/benchmark"),
    clm_bench: Annotated[Path | None, typer.Option(help="folder with CLM-Bench's three files, to count it anew")] = None,
    out: Annotated[Path, typer.Option()] = Path("reports/audit.json"),
) -> None:
    """Hold our own benchmark against every rule and count what it holds. Exits with 1 when a row breaks a rule."""
    from xledit.benchmark.auditing import audit_benchmark

    findings, counted = audit_benchmark(folder, clm_bench, out)
    for finding in findings:
        typer.echo(finding)
    stock = counted.benchmark
    typer.echo(f"{stock.num_facts} facts, {stock.num_relations} relations, {len(findings)} rows break a rule; wrote {out}")
    if findings:
        raise SystemExit(1)


@facts.command("sheet")
def facts_sheet(
    out: Annotated[Path, typer.Option(help="the CSV file to write")],
    number: Annotated[int, typer.Option(min=1, help="how many facts")] = 300,
    folder: Annotated[Path, typer.Option(help="the benchmark's tables")] = Path("data/benchmark"),
) -> None:
    """Draw facts for people to judge, evenly over relations: a sheet to be filled with yes and no, a copy for each annotator."""
    from xledit.benchmark.tables import read_tables
    from xledit.benchmark.validation import LANGUAGES, QUESTIONS, sheet
    from xledit.params import section
    from xledit.storage import write_bytes

    write_bytes(out, sheet(read_tables(folder, LANGUAGES), number, section("seed", int)).encode("utf-8-sig"))
    for question, meaning in QUESTIONS.items():
        typer.echo(f"{question}: {meaning}")
    wrote(out)


@facts.command("tasks")
def facts_tasks(
    out: Annotated[Path, typer.Option(help="folder to write to")],
    folder: Annotated[Path, typer.Option(help="the benchmark's tables")] = Path("data/benchmark"),
) -> None:
    """Write all facts as tasks of lm-evaluation-harness, to ask any model which it knows."""
    from xledit.benchmark.lm_eval import GROUP, task_files
    from xledit.benchmark.tables import read_tables
    from xledit.params import section
    from xledit.storage import write_bytes

    files = task_files(read_tables(folder, ("zh", "en")), section("seed", int))
    for name, text in files.items():
        write_bytes(out / name, text.encode())
    wrote(*(out / name for name in files))
    typer.echo(f"in {out}: lm_eval --include_path . --tasks {GROUP} --model hf --model_args pretrained=YOUR_MODEL")


@facts.command("agreement")
def facts_agreement(
    one: Annotated[Path, typer.Argument(help="a filled sheet")],
    other: Annotated[Path, typer.Argument(help="the same sheet, filled by another annotator")],
) -> None:
    """Say how far two annotators of one sheet agree: shares of yes, and Cohen's kappa."""
    from xledit.benchmark.validation import agreements, read_sheet
    from xledit.report.common.numbers import aligned, number

    rows = [["question", "facts", f"yes: {one.name}", f"yes: {other.name}", "agreed", "kappa"]]
    for row in agreements(read_sheet(one), read_sheet(other)):
        rows.append([row.question, str(row.num_facts), *(number(value) for value in (*row.yes, row.agreed, row.kappa))])
    typer.echo(aligned(rows))


def main() -> None:
    """Run the command line; bad input ends with one readable line."""
    with readable_errors():
        app(standalone_mode=False)


if __name__ == "__main__":
    main()
