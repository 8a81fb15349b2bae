"""The second half at another size: `python -m tools.size small` writes settings/tranyu/small.yaml into params.yaml and says what it costs.

settings/tranyu/NAME.yaml holds the sections of ``tranyu`` that differ from micro's, and the devices that it is meant for; the rows of
its sources are a file of settings/tranyu/sources, each with the ``limit`` of the size.
`git checkout params.yaml` leads back. docs/scale.md has the formulas.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.runner import run
from tools.overlay import read_params, set_params
from xledit.reporting.tables import aligned
from xledit.training.costs import Architecture, Costs, Device, costs

SIZES = Path("settings/tranyu")


class Size(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of settings/tranyu: what it is, the devices it is meant for, and whole sections of ``tranyu`` in params.yaml.

    ``limit`` is how many rows each task of the corpus reads of each source at most, -1 for all.
    """

    what: str
    device: Device
    limit: int = -1
    sections: dict[str, dict[str, Any]]


def read_size(name: str) -> Size:
    """Return a size. Raises ValueError with the file and the key that is wrong, or the names that there are."""
    path, yaml = SIZES / f"{name}.yaml", YAML(typ="safe", pure=True)
    try:
        size = msgspec.convert(yaml.load(path.read_text(encoding="utf-8")), Size)
        if isinstance(file := size.sections.get("sources", {}).get("rows"), str):
            sources = yaml.load((SIZES / "sources" / file).read_text(encoding="utf-8"))
            size.sections["sources"]["rows"] = [row | {"limit": size.limit} for row in sources]
        return size
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in SIZES.glob("*.yaml"))) or "none"
        raise ValueError(f"{path}: no such size; known: {known}") from error
    except (msgspec.ValidationError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def architecture_of(params: dict[str, Any]) -> Architecture:
    """Return the sizes of the model that the tree of params.yaml describes."""
    section = params["tranyu"]
    return msgspec.convert(section["architecture"] | {"vocabulary": section["tokenizer"]["vocabulary"]}, Architecture)


def costs_of(size: Size, params: dict[str, Any]) -> Costs:
    """Return what a size costs with the settings of ``params``, a tree in which it is already written."""
    section = params["tranyu"]
    return costs(architecture_of(params), size.device, section["run"]["tokens"], section["pretrain"]["micro_batch"])


def rows(size: Size, params: dict[str, Any]) -> list[list[str]]:
    """Return the costs of a size as a table of two columns."""
    found, sizes, tokens = costs_of(size, params), architecture_of(params), params["tranyu"]["run"]["tokens"]
    return [
        ["devices", f"{size.device.number} x {size.device.name}"],
        ["parameters", f"{sizes.num_parameters:,}"],
        ["tokens", f"{tokens:.3g}"],
        ["FLOP per token", f"{sizes.flops_per_token:.3g}"],
        ["FLOP in all", f"{found.total_flops:.3g}"],
        ["GB of states per device", f"{found.state_bytes / 1e9:.1f}"],
        ["GB of activations per device", f"{found.activation_bytes / 1e9:.1f}"],
        ["GB of logits per device", f"{found.logit_bytes / 1e9:.1f}"],
        ["GB of memory per device", f"{size.device.memory / 1e9:.0f}"],
        ["tokens per second, all devices", f"{found.tokens_per_second:,.0f}, assumed: {size.device.share_of_peak:.0%} of peak"],
        ["days", f"{found.days:.1f}"],
    ]


def main(name: Annotated[str, typer.Argument(help="a file of settings/tranyu, without .yaml")]) -> None:
    """Write a size into params.yaml."""
    size = read_size(name)
    changed = set_params(Path(), {f"tranyu.{name}": section for name, section in size.sections.items()})
    typer.echo(f"{size.what}; changed: {', '.join(changed) or 'nothing'}\n")
    typer.echo(aligned(rows(size, read_params())))


if __name__ == "__main__":
    run(main)
