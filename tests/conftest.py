"""The pipeline on a tiny random model, run once for all tests that need its results; and a small shell around git and DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from ruamel.yaml import YAML

import tests.typechecking  # noqa: F401 (the hook looks it up by name)
from xledit.runs.settings import set_params

# the modules that pass tensors on, before any of them is imported
CHECKED = ["xledit.editing", "xledit.evaluation", "xledit.geometry", "xledit.interpret", "xledit.models"]
install_import_hook(CHECKED, "tests.typechecking.check")

# speed is measured by `make bench`, and a busy machine is not a fault
settings.register_profile("xledit", deadline=None)
settings.load_profile("xledit")

ROOT = Path(__file__).parents[1]
TINY = {
    "runtime.threads": 1,
    "data.demonstrations": 2,
    "edit.num_facts": 8,
    "edit.layers": [1, 2],
    "grid.methods": ["memit"],
    "grid.direct": ["ft_m", "ike"],  # one that trains, one that writes text before the prompt
    "grid.rewordings": 4,
    "methods.ft_m.layers": [1],
    "methods.ft_m.steps": 2,
    "methods.ike.demonstrations": 2,
    "watch.facts": 4,
    "watch.passages": 4,
    "vectors.steps": 3,
    "covariance.max_tokens": 300,
    "evaluate.max_tokens": 1024,
    "summary.resamples": 50,
}


@dataclass(frozen=True)
class Project:
    """A git and DVC repository, and the environment that its commands run in."""

    root: Path
    env: dict[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository's root. Fails the test with everything it printed when ``check`` and it fails."""
        done = subprocess.run(command, cwd=self.root, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-6000:]}", pytrace=False)
        return done

    def dvc(self, *arguments: str) -> str:
        return self.run("dvc", *arguments).stdout

    def would_run(self, *options: str) -> set[str]:
        """Return the stages that `dvc repro` would run now: those whose own deps, params or outs differ from dvc.lock."""
        return set(re.findall(r"Running stage '(.+)':", self.dvc("repro", "--dry", "--no-run-cache", *options)))

    def affected(self) -> set[str]:
        """Return the stages that would run now or could run because of them."""
        return self.would_run("--force-downstream")

    def lock(self) -> dict[str, dict]:
        """Return what dvc.lock says of each stage."""
        return YAML(typ="safe").load((self.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def clone(self, root: Path) -> "Project":
        """Return a git clone: what git holds and none of DVC's data."""
        self.run("git", "clone", "--quiet", str(self.root), str(root))
        return replace(self, root=root)

    def copy(self, root: Path) -> "Project":
        """Return a copy with DVC's data in it."""
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)

    @contextmanager
    def put_back(self, path: str | Path) -> Iterator[Path]:
        """Put a file's bytes back at the end, whatever happens to it."""
        file = self.root / path
        content = file.read_bytes()
        try:
            yield file
        finally:
            file.write_bytes(content)

    @contextmanager
    def changed(self, path: str | Path, old: str, new: str) -> Iterator[None]:
        """Replace ``old``, which stands once in a file, by ``new`` for a while."""
        with self.put_back(path) as file:
            text = file.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{path}: {old!r} must stand there once"
            file.write_text(text.replace(old, new), encoding="utf-8")
            yield

    @contextmanager
    def param(self, path: str, value: object) -> Iterator[None]:
        """Give a setting of params.yaml another value for a while."""
        with self.put_back("params.yaml"):
            set_params(self.root, {path: value})
            yield


@dataclass(frozen=True)
class TinyProject(Project):
    """The project after one `dvc repro` on a tiny model, all committed; ``logs`` is what the stages read and wrote."""

    model: Path
    logs: Path


def environment(scratch: Path) -> dict[str, str]:
    """Return this process's environment with our Python first, no settings of the user's git, DVC and AWS, and the hub offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DVC_", "GIT_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_GLOBAL_CONFIG_DIR": str(scratch),
        "DVC_SYSTEM_CONFIG_DIR": str(scratch),
        "DVC_SITE_CACHE_DIR": str(scratch / "dvc"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_{what}": "tests@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "XLEDIT_CACHE": str(scratch / "xledit"),
    }


def new_project(root: Path, env: dict[str, str]) -> Project:
    """Return a git repository with the files of our working tree: the tracked ones and those that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    project = Project(root, env)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    return project


def remove_results(root: Path) -> None:
    """Remove what `dvc repro` writes; reports/audit.json is a source, written by `make audit`."""
    for pipeline in (root, root / "tranyu", root / "crossing"):
        (pipeline / "dvc.lock").unlink(missing_ok=True)
    for path in (root / "reports").rglob("*"):
        if path.is_file() and path.name != "audit.json":
            path.unlink()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist have all tests that share the tiny project."""
    for item in items:
        if "tiny_project" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("tiny_project"))


@pytest.fixture(autouse=True)
def precision_put_back() -> Iterator[None]:
    """A stage that a test calls sets torch's precision for its process; tests after it must not multiply in bfloat16."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """A copy of this project that has run on a tiny random model. About two minutes, once; leave it as you found it."""
    from tests.tiny import save_tiny

    scratch = tmp_path_factory.mktemp("tiny")
    root, logs, model = scratch / "project", scratch / "logs", save_tiny(scratch / "model")
    env = environment(scratch) | {
        "PYTHONPATH": str(root / "tests" / "audit"),
        "AUDIT_LOGS": str(logs),
        "AUDIT_ROOTS": os.pathsep.join([str(root), str(model)]),
    }
    logs.mkdir()
    project = new_project(root, env)
    for other in ("tranyu", "crossing"):  # the first half is a project by itself; tests of the second have their own
        shutil.rmtree(root / other)
    remove_results(root)
    set_params(root, TINY | {"model.name": str(model), "model.files": str(model)})
    project.commit("The project, on a tiny model")
    project.dvc("repro")
    project.commit("Its results")
    later = {name: value for name, value in env.items() if not name.startswith("AUDIT_")}
    return TinyProject(root, later, model, logs)


@pytest.fixture(scope="session")
def plain_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for commands in repositories other than the tiny project."""
    return environment(tmp_path_factory.mktemp("plain"))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
