"""Hash every output of dvc.lock again, and the copy in DVC's cache behind it: DVC itself believes both (treeverse/dvc#5978).

Names each damaged or missing one. What is neither in the workspace nor in the cache is "not here", as in a fresh clone;
with ``--strict`` that fails too.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML


def md5_of(path: Path) -> str:
    """Return the MD5 that DVC gives a file, or a folder: that of the JSON list of its files and their MD5s."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listed = json.dumps([{"md5": md5_of(file), "relpath": name} for name, file in files], sort_keys=True)
        return hashlib.md5(listed.encode()).hexdigest() + ".dir"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def locked_outputs(stages: set[str]) -> dict[Path, str]:
    """Return the MD5 of each output that dvc.lock has for these stages."""
    tree = YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8"))
    return {Path(out["path"]): out["md5"] for name, stage in tree["stages"].items() if name in stages for out in stage.get("outs", ())}


def cached(md5: str, cache: Path) -> Iterator[tuple[Path, str]]:
    """Yield the cache's objects for an output that are there, with the MD5 that each should have."""
    path = cache / md5[:2] / md5[2:]
    if path.is_file():
        yield path, md5.removesuffix(".dir")
        if md5.endswith(".dir") and md5_of(path) == md5.removesuffix(".dir"):
            for entry in json.loads(path.read_bytes()):
                yield from cached(entry["md5"], cache)


def problems(path: Path, md5: str, cache: Path) -> tuple[list[str], bool]:
    """Return a line per problem of an output, and whether any of its bytes are in the workspace or in the cache."""
    objects = list(cached(md5, cache))
    texts = [
        f"{path}: damaged in the cache; delete {place}, then `dvc pull` or `dvc repro`"
        for place, expected in objects
        if md5_of(place) != expected
    ]
    if not path.exists():
        if objects and not texts:
            texts.append(f"{path}: missing; `dvc checkout {path}` brings it back from the cache")
    elif md5_of(path) != md5:
        texts.append(f"{path}: damaged or changed, not the bytes of dvc.lock; `dvc repro` or `dvc checkout --force {path}`")
    return texts, bool(objects) or path.exists()


def main() -> int:
    """Print the problems. Returns 1 when an output is damaged or missing."""
    parser = argparse.ArgumentParser(prog="verify", description="Hash every output again and compare with dvc.lock.")
    parser.add_argument("--strict", action="store_true", help="fail on outputs that are not here, too")
    strict = parser.parse_args().strict
    if not Path("dvc.lock").is_file():
        print("dvc.lock: not found; run `dvc repro` first, from the project's root")
        return 1
    from dvc.repo import Repo

    with Repo(".") as repo:
        stages, cache = {stage.addressing for stage in repo.index.stages}, Path(repo.cache.local.path)
    outputs = locked_outputs(stages)
    bad, absent = 0, 0
    for path, md5 in outputs.items():
        texts, here = problems(path, md5, cache)
        for text in texts if here else [f"{path}: not here; `dvc pull` or `dvc repro`"]:
            print(text)
        bad, absent = bad + bool(texts), absent + (not here)
    print(f"{len(outputs)} outputs: {len(outputs) - bad - absent} good, {bad} damaged or missing, {absent} not here")
    return int(bad > 0 or (strict and absent > 0))


if __name__ == "__main__":
    sys.exit(main())
