"""A repository whose pipeline has the stages that runs ask for, of a trivial kind, to see what becomes of runs in DVC's queue."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.conftest import ROOT, Project
from xledit.manifest import Family, ModelManifest

MANIFEST = ModelManifest(
    name="/somewhere/private/tiny-model",
    revision=None,
    source="folder",
    family="llama",
    dtype="float32",
    num_layers=32,
    d_model=64,
    d_key=64,
    vocabulary=500,
    num_parameters=1,
    row=Family(),
    probed=False,
    weights="0",
)
# waits while the file HOLD is there, which HOLDing tells; fails on a layer that there is not; exact grows with the number of layers
STAGE = """\
import json, os, pathlib, sys, time
from ruamel.yaml import YAML
name = os.environ["DVC_STAGE"]
layers = YAML(typ="safe").load(pathlib.Path("params.yaml").read_text())["edit"]["layers"]
if max(layers) > 31:
    sys.exit("no such layer as %d" % max(layers))
while name != "model" and pathlib.Path(os.environ["HOLD"]).exists():
    pathlib.Path(os.environ["HOLD"] + "ing").touch()
    time.sleep(0.1)
share = lambda value: {"value": value, "low": value, "high": value}
out = pathlib.Path(sys.argv[1])
out.parent.mkdir(parents=True, exist_ok=True)
if name == "model":
    content = MANIFEST
elif name.startswith("summarise"):
    method, edit = out.stem.split("-")
    edited = ["zh", "en"] if edit == "mixed" else [edit]
    metrics = dict(exact=share(len(layers) / 4), locality_tokens=share(0.5), efficacy=share(0.5))
    content = dict(method=method, edit=edit, edit_languages=edited, num_facts=100, floor={}, transfer={}, trans=share(0), examples=[])
    content["metrics"] = {code: metrics for code in ("zh", "en")}
else:
    content = []
out.write_text(json.dumps(content))
with open(os.environ["RAN"], "a") as file:
    file.write(name + "\\n")
if "XLEDIT_TIMINGS" in os.environ:
    with open(os.path.expandvars(os.environ["XLEDIT_TIMINGS"]), "a") as file:
        file.write(json.dumps({"stage": name, "wall_s": 1.5, "cpu_s": 2.5}) + "\\n")
"""
PIPELINE = """\
stages:
  model:
    cmd: python stage.py artifacts/model.json
    deps: [stage.py]
    params: [edit, data, vectors]
    outs:
      - artifacts/model.json
  summarise:
    matrix: {method: "${grid.methods}", edit: "${grid.edits}"}
    cmd: python stage.py reports/cells/${key}.json
    deps: [stage.py, artifacts/model.json, data/facts.txt]
    params: [edit]
    outs:
      - reports/cells/${key}.json:
          cache: false
  update_geometry:
    matrix: {method: "${grid.methods}"}
    cmd: python stage.py reports/geometry/${item.method}.json
    deps: [stage.py, artifacts/model.json]
    params: [edit]
    outs:
      - reports/geometry/${item.method}.json:
          cache: false
"""


@dataclass(frozen=True)
class Toy(Project):
    """The repository. The file ``hold`` holds its stages up, but for the first; ``ran`` names those that have ended."""

    hold: Path
    ran: Path

    @property
    def held(self) -> Path:
        """A file that is there once a stage was held up."""
        return Path(f"{self.hold}ing")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def xledit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command(*arguments), check=False)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "xledit.cli", *arguments, *(("--poll", "1") if arguments[0] == "run" else ())]

    def wait_until(self, state: str, *, gone: bool = False) -> None:
        """Wait until DVC's queue has, or no longer has, a task in a state."""
        deadline = time.monotonic() + 120
        while (state in self.dvc("queue", "status")) == gone:
            assert time.monotonic() < deadline, f"{state}: {'still' if gone else 'not'} there"
            time.sleep(1)


def new_toy(root: Path, env: dict[str, str]) -> Toy:
    toy = Toy(
        root / "toy", env | {"PYTHONPATH": str(ROOT), "HOLD": str(root / "hold"), "RAN": str(root / "ran")}, root / "hold", root / "ran"
    )
    toy.write("stage.py", f"MANIFEST = {msgspec.to_builtins(MANIFEST)!r}\n{STAGE}")
    toy.write("dvc.yaml", PIPELINE)
    toy.write("params.yaml", (ROOT / "params.yaml").read_text(encoding="utf-8"))
    toy.write("data/facts.txt", "a fact\n")
    toy.write(".gitignore", "/artifacts/\n")
    toy.run("git", "init", "--quiet", "--initial-branch=main")
    toy.dvc("init", "--quiet")
    toy.commit("A toy")
    return toy
