"""The benchmarks that FuxiTranyu was asked (arXiv 2408.06273, section 5), as tasks of lm-evaluation-harness.

The harness has no English m-ARC and m-HellaSwag (there its own ARC and HellaSwag stand), no Chinese m-HellaSwag (the others' task on the
data set's Chinese part), and XL-Sum for a few languages only (our task: data/tranyu/benchmark/xlsum.yaml). Of ARC and HellaSwag the
paper's level is that of ``acc_norm``: the log-probability of an answer divided by its characters. Shots of XWinograd are of the very
split that is asked, without the document in question.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from xledit.storage import write_bytes
from xledit.training.rouge import rouge_l

OURS = Path("data/tranyu/benchmark/xlsum.yaml")
OKAPI = "ar bn de en es fr hu id it pt ru sk ta vi zh"
XLSUM = {
    "ar": "arabic",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "gu": "gujarati",
    "hi": "hindi",
    "id": "indonesian",
    "mr": "marathi",
    "pt": "portuguese",
    "ru": "russian",
    "sr": "serbian_cyrillic",
    "ta": "tamil",
    "uk": "ukrainian",
    "vi": "vietnamese",
    "zh": "chinese_simplified",
}
TRANSLATED = {"wmt14": "en-fr fr-en", "wmt16": "en-de de-en en-ro ro-en", "iwslt2017": "en-ar ar-en"}
HUB = {"wmt14": "wmt/wmt14", "wmt16": "wmt/wmt16", "iwslt2017": "IWSLT/iwslt2017"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a benchmark: ``base`` is a file of the harness's tasks that it includes, ``data`` the data set's name on the hub.

    ``changes`` are settings of the task that differ from those of ``base``.
    """

    language: str
    task: str
    base: str
    data: str
    shots: int
    metric: str
    changes: Mapping[str, str] = {}


def _rows(codes: str, task: str, base: str, data: str, shots: int, metric: str, **changes: str) -> tuple[Row, ...]:
    return tuple(
        Row(language=code, task=task.format(code), base=base.format(code), data=data, shots=shots, metric=metric, changes=changes)
        for code in codes.split()
    )


SUITE: dict[str, tuple[Row, ...]] = {
    "m-ARC": (
        *_rows("en", "arc_challenge", "arc/arc_challenge.yaml", "allenai/ai2_arc", 25, "acc_norm"),
        *_rows(
            OKAPI.replace("en ", ""),
            "arc_{}",
            "okapi/arc_multilingual/arc_{}.yaml",
            "alexandrainst/m_arc",
            25,
            "acc_norm",
        ),
    ),
    "m-HellaSwag": (
        *_rows("en", "hellaswag", "hellaswag/hellaswag.yaml", "Rowan/hellaswag", 10, "acc_norm"),
        *_rows(
            OKAPI.replace("en ", "").replace(" zh", ""),
            "hellaswag_{}",
            "okapi/hellaswag_multilingual/hellaswag_{}.yaml",
            "alexandrainst/m_hellaswag",
            10,
            "acc_norm",
        ),
        *_rows(
            "zh",
            "hellaswag_{}",
            "okapi/hellaswag_multilingual/hellaswag_vi.yaml",
            "alexandrainst/m_hellaswag",
            10,
            "acc_norm",
            dataset_name="zh",
        ),
    ),
    "m-MMLU": _rows(OKAPI, "m_mmlu_{}", "okapi/mmlu_multilingual/m_mmlu_{}.yaml", "alexandrainst/m_mmlu", 5, "acc"),
    "XWinograd": _rows(
        "en fr jp pt ru zh", "xwinograd_{}", "xwinograd/xwinograd_{}.yaml", "Muennighoff/xwinograd", 5, "acc", fewshot_split="test"
    ),
    "XCOPA": _rows("et ht id it qu sw ta th tr vi zh", "xcopa_{}", "xcopa/default_{}.yaml", "cambridgeltl/xcopa", 0, "acc"),
    "XStoryCloze": _rows(
        "ar es eu hi id my ru sw te zh", "xstorycloze_{}", "xstorycloze/default_{}.yaml", "juletxara/xstory_cloze", 0, "acc"
    ),
    "translation": tuple(
        row
        for corpus, pairs in TRANSLATED.items()
        for row in _rows(pairs, f"{corpus}-{{}}", f"translation/{corpus}_{{}}.yaml", HUB[corpus], 0, "bleu")
    ),
    "XL-Sum": tuple(
        row
        for code, name in XLSUM.items()
        for row in _rows(code, "xlsum_{}", str(OURS), "csebuetnlp/xlsum", 0, rouge_l.__name__, dataset_name=name)
    ),
}


def chosen(names: Sequence[str], local: Mapping[str, str]) -> dict[str, tuple[Row, ...]]:
    """Return the benchmarks of these names, all of them for ``paper``.

    ``local`` are folders that stand for data sets of the hub, in the hub's layout. Raises ValueError for a name that there is none of,
    and for a folder that is not there, that no task of these reads, or whose data set is a script.
    """
    if odd := [name for name in names if name not in (*SUITE, "paper")]:
        raise ValueError(f"suite: {odd[0]}: no such benchmark; known: world, paper, {', '.join(SUITE)}")
    rows = {name: rows for name, rows in SUITE.items() if name in names or "paper" in names}
    read = sorted({row.data for group in rows.values() for row in group})
    for data, folder in local.items():
        if data not in read:
            raise ValueError(f"local: {data}: no benchmark of the suite reads this data set; they read: {', '.join(read) or 'none'}")
        if not Path(folder).is_dir():
            raise ValueError(f"local: {data}: {folder}: no such folder")
        if scripts := [f"{name}.py" for name in (data.partition("/")[2], Path(folder).name) if (Path(folder) / f"{name}.py").exists()]:
            raise ValueError(
                f"local: {data}: {folder}/{scripts[0]}: a data set that is a script is not run; put its rows there as Parquet or JSON "
                f"lines, with a README.md that names them by `configs`, and remove the script"
            )
    return rows


def write_task(folder: Path, row: Row, local: Mapping[str, str], cache: Path) -> None:
    """Write a task as a file that includes the harness's one. What is read from local folders is cached in ``cache``, not at home.

    Raises ValueError where the installed harness has no such task.
    """
    base = _base(row)
    if not base.is_file():
        raise ValueError(f"{row.task}: {base}: no such task; the suite is that of lm-eval 0.4.13")
    settings: dict[str, object] = {"include": str(base), "task": row.task, "num_fewshot": row.shots, **row.changes}
    if row.data in local:
        settings |= {"dataset_path": str(Path(local[row.data]).absolute()), "dataset_kwargs": {"cache_dir": str(cache)}}
    # JSON is YAML
    write_bytes(folder / f"{row.task}.yaml", msgspec.json.encode(settings))


def _base(row: Row) -> Path:
    if row.base == str(OURS):
        return OURS.absolute()
    package = find_spec("lm_eval")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "tasks" / row.base
