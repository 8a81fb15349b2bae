"""Model name -> artifacts/model.json: the exact bytes behind the name, converted to safetensors once if need be."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.devices import start_torch
from stages.common.runner import log, run, wrote
from xledit.families.describe import describe
from xledit.models.loading import ModelParams
from xledit.params import section
from xledit.storage import write_json


def main(out: Annotated[Path, typer.Option()]) -> None:
    start_torch()
    manifest = describe(section("model", ModelParams))
    log.info("%s: %s, %d layers, %.0f M parameters", manifest.name, manifest.family, manifest.num_layers, manifest.num_parameters / 1e6)
    if manifest.probed:
        log.warning("family %s has no row in xledit/families/table.py; probed and taken: %s", manifest.family, manifest.row)
    write_json(out, manifest)
    wrote(out)


if __name__ == "__main__":
    run(main)
