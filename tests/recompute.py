"""Every number of the reports again, from saved artifacts and params.yaml alone: ``python tests/recompute.py [ROOT]``.

A second implementation, written from the definitions (README.md, docs/methods.md, the glossary of measures, docstrings), so
that a wire crossed between two right formulas shows. It imports nothing of the project and joins facts by id, never by place.
Prints how many values it checked and each that differs: file, key, found, recomputed. Exit 1 if there is any.

What it holds: all of ``reports/cells/*.json``, ``reports/geometry/vectors.json`` and ``reports/geometry/METHOD.json``. Updates
that nobody applied (the nulls of halves and of other words) are solved as their papers print them, by the d_in-sized system,
where the project solves the facts-sized one. Not recomputed: the nulls of ``SKIPPED`` methods, which it names.
"""

import itertools
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from safetensors import safe_open
from scipy import linalg, stats
from scipy.spatial import distance

Array = np.ndarray
Factors = tuple[Array, Array]  # an update is left @ right, [d_out facts] and [facts d_in]

# what may differ. Shares are saved with four decimals: half of the last one, and float64's noise on top
ROUNDED = (0.0, 0.5e-4 + 1e-9)
# geometry is saved whole, in float64. Sums in another order move the 16th digit, a solve loses as many digits as the condition of
# its system has (on the default run the worst is 1e-13), and cosines of orthogonal things are sums that cancel
WHOLE = (1e-8, 1e-10)
# what lies below a name is held by a measure of its own
TOLERANCES = {
    "checks": (0.0, 0.0),  # handed on as they are
    # arccos near 1 and a difference of squares near 0 give back only half of float64's digits
    **dict.fromkeys(("key_angle_mean", "key_angle_min", "value_angle_mean", "value_angle_min"), (1e-6, 1e-5)),
    "additivity_error": (1e-6, 1e-7),
}

NAN = float("nan")


@dataclass
class Outcome:
    """What was compared, what differs, and what could not be recomputed."""

    checked: int = 0
    disagreements: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def compare(self, found: Any, wanted: Any, file: str, key: str = "", tolerance: tuple[float, float] = WHOLE) -> None:
        """Hold what a file says against what it should say, leaf by leaf; what is missing or too much differs, too."""
        if isinstance(wanted, dict) and isinstance(found, dict):
            for name in sorted({*wanted, *found}):
                one, other = found.get(name, "nothing"), wanted.get(name, "nothing")
                self.compare(one, other, file, f"{key}.{name}".lstrip("."), TOLERANCES.get(name, tolerance))
        elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
            for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
                self.compare(one, other, file, f"{key}[{place}]", tolerance)
        else:
            self.checked += 1
            if not _agree(found, wanted, *tolerance):
                self.disagreements.append(f"{file}: {key}: found {found}, recomputed {wanted}")


def _agree(found: Any, wanted: Any, relative: float, absolute: float) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):  # JSON spells it null
        return found is None
    if isinstance(wanted, float) and type(found) in (int, float):
        return math.isclose(found, wanted, rel_tol=relative, abs_tol=absolute)
    return type(found) is type(wanted) and found == wanted


def recompute(root: Path, *parts: Callable[[Path, dict, Outcome], None]) -> Outcome:
    """Return how the reports of a project, or some ``parts`` of them, compare with what its artifacts say."""
    outcome = Outcome()
    params = YAML(typ="safe", pure=True).load((root / "params.yaml").read_text(encoding="utf-8"))
    for check in parts or (check_cells, check_vectors, check_updates):
        check(root, params, outcome)
    return outcome


def methods_of(params: dict) -> list[str]:
    """Return the methods of a grid: those that wait for vectors, and those that do without."""
    return [*params["grid"]["methods"], *params["grid"].get("direct", [])]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# cells: what the models answer


def share_equal(left: Sequence[int], right: Sequence[int]) -> float:
    """Return the share of places at which two rows of tokens are the same."""
    assert len(left) == len(right)
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def per_token(answer: dict) -> float:
    """Return an answer's log-probability per token."""
    return answer["logprob"] / len(answer["tokens"])


# rules of one probe: what the model says, and what the unedited one says to the same probe
Rule = Callable[[dict, dict], float]
RULES: dict[str, Rule] = {
    "new is likelier": lambda score, _: per_token(score["new"]) > per_token(score["true"]),
    "new is likelier by sum": lambda score, _: score["new"]["logprob"] > score["true"]["logprob"],
    "true is likelier": lambda score, _: per_token(score["true"]) > per_token(score["new"]),
    "true is likelier by sum": lambda score, _: score["true"]["logprob"] > score["new"]["logprob"],
    "tokens of new": lambda score, _: share_equal(score["new"]["tokens"], score["new"]["argmax"]),
    "all tokens of new": lambda score, _: share_equal(score["new"]["tokens"], score["new"]["argmax"]) == 1,
    "says new": lambda score, _: score["generated"].strip().startswith(score["target_new"]),
    "tokens along true stay": lambda score, was: share_equal(score["true"]["argmax"], was["true"]["argmax"]),
}
# measure -> the kind of probe, and the rule; as the glossary has them
MEASURES = {
    "efficacy": ("efficacy", "new is likelier"),
    "efficacy_sum": ("efficacy", "new is likelier by sum"),
    "reliability": ("efficacy", "tokens of new"),
    "exact": ("efficacy", "says new"),
    "exact_forced": ("efficacy", "all tokens of new"),
    "paraphrase": ("paraphrase", "new is likelier"),
    "paraphrase_sum": ("paraphrase", "new is likelier by sum"),
    "generality": ("paraphrase", "tokens of new"),
    "paraphrase_exact": ("paraphrase", "all tokens of new"),
    "translated": ("translated", "new is likelier"),
    "translated_exact": ("translated", "all tokens of new"),
    "alias": ("alias", "new is likelier"),
    "alias_exact": ("alias", "all tokens of new"),
    "portability": ("portability", "new is likelier"),
    "portability_tokens": ("portability", "tokens of new"),
    "locality": ("locality", "true is likelier"),
    "locality_sum": ("locality", "true is likelier by sum"),
    "locality_tokens": ("locality", "tokens along true stay"),
    "near": ("near", "true is likelier"),
    "near_tokens": ("near", "tokens along true stay"),
    "far": ("far", "true is likelier"),
    "far_tokens": ("far", "tokens along true stay"),
}
SCORE = ("efficacy", "paraphrase", "locality")
TRANSFERRED = ("efficacy", "reliability", "exact")
GROUPED_BY = ("split", "order")
GROUP_MEASURES = ("efficacy", "exact", "paraphrase", "locality", "locality_tokens")


def mean(sample: Array, axis: int = -1) -> Array:
    """Return the mean over facts."""
    return np.mean(sample, axis=axis)


def harmonic_mean(*samples: Array, axis: int = -1) -> Array:
    """Return the harmonic mean of several means; 0 where one of them is 0."""
    means = np.stack([mean(sample, axis) for sample in samples])
    with np.errstate(divide="ignore"):
        return len(means) / (1 / means).sum(0)


def smallest_over_largest(*samples: Array, axis: int = -1) -> Array:
    """Return the smallest of several means over the largest; 0 where all are 0."""
    means = np.stack([mean(sample, axis) for sample in samples])
    with np.errstate(invalid="ignore"):
        return np.where(means.max(0) == 0, 0.0, means.min(0) / means.max(0))


def gain_over_gain(own: Array, own_floor: Array, other: Array, other_floor: Array, axis: int = -1) -> Array:
    """Return the gain over the floor there, by the gain over the floor here; NaN where nothing was gained here."""
    here, there = mean(own - own_floor, axis), mean(other - other_floor, axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(here > 0, there / here, NAN)


@dataclass(frozen=True)
class Answers:
    """One model's answers and the unedited one's to the same probes, as one number per fact."""

    scores: list[dict]
    before: dict[tuple, dict]

    @classmethod
    def read(cls, scores: Path, floor: Path) -> "Answers":
        """Return the answers of two files. Raises ValueError when they are not to the same probes."""
        after, before = dict(cls._by_probe(_json(scores))), dict(cls._by_probe(_json(floor)))
        if after.keys() != before.keys():
            raise ValueError(f"{scores} and {floor} are of different probes")
        return cls([score | {"probe": probe} for probe, score in after.items()], before)

    @staticmethod
    def _by_probe(scores: Sequence[dict]) -> Iterator[tuple[tuple, dict]]:
        """Yield each score with what it is about; the same probe asked twice counts as two."""
        seen: dict[tuple, int] = {}
        for score in scores:
            about = tuple(score[name] for name in ("fact_id", "language", "kind", "prompt", "target_new", "target_true"))
            seen[about] = seen.get(about, 0) + 1
            yield (*about, seen[about]), score

    @cached_property
    def languages(self) -> list[str]:
        """The languages that were asked in."""
        return list(dict.fromkeys(score["language"] for score in self.scores))

    @cached_property
    def facts(self) -> list[str]:
        """The facts, in the order in which they are first asked about: that is what resampling draws from."""
        return list(dict.fromkeys(score["fact_id"] for score in self.scores))

    def measure(self, name: str, code: str, facts: Sequence[str], edited: bool) -> Array:
        """Return a measure of each fact in one language: the mean over its probes, NaN without any."""
        values = self._values if edited else self._floors
        return np.array([np.mean(values.get((name, code, fact), [NAN])) for fact in facts])

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], list[float]]:
        return self._measured(lambda score: score)

    @cached_property
    def _floors(self) -> dict[tuple[str, str, str], list[float]]:
        return self._measured(lambda score: self.before[score["probe"]])

    def _measured(self, of: Callable[[dict], dict]) -> dict[tuple[str, str, str], list[float]]:
        found: dict[tuple[str, str, str], list[float]] = {}
        for score, (name, (kind, rule)) in itertools.product(self.scores, MEASURES.items()):
            if score["kind"] == kind:
                value = float(RULES[rule](of(score), self.before[score["probe"]]))
                found.setdefault((name, score["language"], score["fact_id"]), []).append(value)
        return found


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals over facts: 95 %, with the resamples and the seed of params.yaml."""

    resamples: int
    seed: int

    def __call__(self, statistic: Callable[..., Array], *samples: Array) -> dict[str, float]:
        """Return a statistic and its interval; facts without a value and resamples where it is not defined are left out."""
        kept = ~np.isnan(np.stack(samples)).any(0)
        data = [sample[kept] for sample in samples]
        if not kept.any():
            return {"value": NAN, "low": NAN, "high": NAN}
        value = float(statistic(*data))
        if kept.sum() < 2:
            return {"value": value, "low": NAN, "high": NAN}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            rng = np.random.default_rng(self.seed)
            drawn = stats.bootstrap(data, statistic, paired=True, vectorized=True, n_resamples=self.resamples, method="percentile", rng=rng)
        defined = drawn.bootstrap_distribution[~np.isnan(drawn.bootstrap_distribution)]
        low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (NAN, NAN)
        return {"value": value, "low": float(low), "high": float(high)}


def check_cells(root: Path, params: dict, outcome: Outcome) -> None:
    """Hold all summaries of edited models against the answers they are of."""
    folder = root / "reports" / "cells"
    wanted = {f"{method}-{edit}.json": (method, edit) for method in methods_of(params) for edit in params["grid"]["edits"]}
    outcome.compare(sorted(path.name for path in folder.glob("*.json")), sorted(wanted), "reports/cells")
    labels = _json(root / "artifacts" / "labels.json")
    for name, (method, edit) in wanted.items():
        if (folder / name).exists():
            cell = cell_of(root, params, method, edit, labels)
            outcome.compare(_json(folder / name), cell, f"reports/cells/{name}", tolerance=ROUNDED)


def cell_of(root: Path, params: dict, method: str, edit: str, labels: Mapping[str, Mapping[str, str]]) -> dict:
    """Return what the summary of one edited model should say."""
    languages = params["grid"]["languages"]
    edited_in = [edit] if edit in languages else languages
    artifacts = root / "artifacts"
    answers = Answers.read(artifacts / "scores" / f"{method}-{edit}.json", artifacts / "scores" / "floor.json")
    bootstrap = Bootstrap(params["summary"]["resamples"], params["seed"])

    def table(facts: Sequence[str], names: Sequence[str], edited: bool) -> dict[str, dict]:
        return {code: {name: bootstrap(mean, answers.measure(name, code, facts, edited)) for name in names} for code in answers.languages}

    def whole_table(edited: bool) -> dict[str, dict]:
        scores = {
            code: bootstrap(harmonic_mean, *(answers.measure(name, code, answers.facts, edited) for name in SCORE))
            for code in answers.languages
        }
        return {code: found | {"score": scores[code]} for code, found in table(answers.facts, list(MEASURES), edited).items()}

    def gains(name: str, code: str, facts: Sequence[str]) -> tuple[Array, Array]:
        return answers.measure(name, code, facts, edited=True), answers.measure(name, code, facts, edited=False)

    def transfer(facts: Sequence[str]) -> dict[str, dict]:
        own, found = edited_in[0], {}
        for other in set(answers.languages) - set(edited_in):
            found[other] = {name: bootstrap(gain_over_gain, *gains(name, own, facts), *gains(name, other, facts)) for name in TRANSFERRED}
            # how much likelier the new answer became for other subjects: neighbours whose true answer is not ahead any more
            spilt = [1 - values for values in gains("locality", other, facts)]
            found[other]["control"] = bootstrap(gain_over_gain, *gains("efficacy", own, facts), *spilt)
        return found

    def group(label: str, value: str) -> dict:
        facts = [fact for fact in answers.facts if labels.get(fact, {}).get(label) == value]
        return {
            "label": label,
            "value": value,
            "num_facts": len(facts),
            "metrics": table(facts, GROUP_MEASURES, edited=True),
            "floor": table(facts, GROUP_MEASURES, edited=False),
            "transfer": transfer(facts),
        }

    values = {label: sorted({labels[fact][label] for fact in answers.facts if label in labels.get(fact, {})}) for label in GROUPED_BY}
    reliabilities = [answers.measure("reliability", code, answers.facts, edited=True) for code in answers.languages]
    return {
        "method": method,
        "edit": edit,
        "edit_languages": list(edited_in),
        "num_facts": len(answers.facts),
        "metrics": whole_table(edited=True),
        "floor": whole_table(edited=False),
        "transfer": transfer(answers.facts),
        "trans": bootstrap(smallest_over_largest, *reliabilities),
        "groups": [group(label, value) for label, several in values.items() if len(several) > 1 for value in several],
        "checks": _json(artifacts / "checks" / f"{method}-{edit}.json"),
        "examples": [
            {name: score[name] for name in ("language", "prompt", "target_new", "target_true")}
            | {"before": answers.before[score["probe"]]["generated"], "after": score["generated"]}
            for code in answers.languages
            for score in [s for s in answers.scores if s["language"] == code and s["generated"] is not None][
                : params["summary"]["examples"]
            ]
        ],
    }


# geometry: what the edits are made of


class Tensors:
    """A file of tensors, read one by one, and the header that says what they are."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="np")
        self.header = json.loads(self._file.metadata()["xledit"])

    def __getitem__(self, name: str) -> Array:
        return self._file.get_tensor(name).astype(np.float64)


@dataclass(frozen=True)
class Part:
    """Some facts of one language, in one wording."""

    vectors: Tensors
    facts: tuple[str, ...]

    @classmethod
    def all(cls, path: Path) -> "Part":
        """Return all facts of a file."""
        vectors = Tensors(path)
        return cls(vectors, tuple(vectors.header["fact_ids"]))

    def of(self, facts: Sequence[str]) -> "Part":
        """Return the part that these facts make. Raises ValueError when one is not there."""
        if not set(facts) <= set(self.facts):
            raise ValueError(f"not all of {len(facts)} facts have vectors: {sorted(set(facts) - set(self.facts))[:3]}")
        return Part(self.vectors, tuple(facts))

    def rows(self, name: str, layer: int) -> Array:
        """Return one vector per fact: ``keys``, ``values``, ``targets``, or ``deltas``, target value minus value."""
        if name == "deltas":
            return self.rows("targets", layer) - self.rows("values", layer)
        places = {fact: place for place, fact in enumerate(self.vectors.header["fact_ids"])}
        return self.vectors[f"{name}{layer}"][[places[fact] for fact in self.facts]]


@dataclass(frozen=True)
class Wordings:
    """The vectors of all languages: each fact as it was edited, and some in other words."""

    own: dict[str, Part]
    reworded: dict[str, Part]

    @classmethod
    def read(cls, root: Path, languages: Sequence[str]) -> "Wordings":
        """Return the vectors of a project. Facts come in the first language's order in all of them."""
        artifacts = root / "artifacts"
        own = {code: Part.all(artifacts / "vectors" / f"{code}.safetensors") for code in languages}
        facts = own[languages[0]].facts
        if any(set(part.facts) != set(facts) for part in own.values()):
            raise ValueError("the languages' vectors are of different facts")
        return cls({code: part.of(facts) for code, part in own.items()}, {code: Part.all(_reworded(artifacts, code)) for code in languages})

    @property
    def layers(self) -> list[int]:
        """The edited layers."""
        return next(iter(self.own.values())).vectors.header["layers"]


def _reworded(artifacts: Path, code: str) -> Path:
    """Return the file with the vectors of facts in other words: its folder was once the rewordings' own."""
    folders = [artifacts / name for name in ("reworded", "rewordings")]
    return next(folder for folder in folders if (folder / f"{code}.safetensors").exists()) / f"{code}.safetensors"


def check_vectors(root: Path, params: dict, outcome: Outcome) -> None:
    """Hold the geometry of keys and value changes against the vectors."""
    wordings = Wordings.read(root, params["grid"]["languages"])
    rows = []
    for layer, what in itertools.product(wordings.layers, ("keys", "deltas")):
        own = {code: part.rows(what, layer) for code, part in wordings.own.items()}
        reworded = {}
        for code, other in wordings.reworded.items():
            if len(other.facts) >= 3:
                reworded[code] = likeness(wordings.own[code].of(other.facts).rows(what, layer), other.rows(what, layer))
        rows.append(
            {
                "layer": layer,
                "what": what,
                "across": {f"{a}-{b}": likeness(own[a], own[b]) for a, b in itertools.combinations(own, 2)},
                "reworded": reworded,
                "within": {code: within(vectors) for code, vectors in own.items()},
                "random": next(iter(own.values())).shape[1] ** -0.5,
            }
        )
    file = "reports/geometry/vectors.json"
    outcome.compare(_json(root / file), rows, file)


def cosines(left: Array, right: Array) -> Array:
    """Return the cosine of each pair of rows; 0 with a row of zeros."""
    return np.nan_to_num(1 - distance.cdist(left, right, "cosine"))


def centred(vectors: Array) -> Array:
    """Return vectors less their mean."""
    return vectors - vectors.mean(0)


def likeness(left: Array, right: Array) -> dict:
    """Return how alike the same facts are in two sets, beside different facts."""
    found: dict[str, Any] = {"num_facts": len(left), "chance": 1 / len(left)}
    for prefix, matrix in (("", cosines(left, right)), ("centred_", cosines(centred(left), centred(right)))):
        same, different = matrix.diagonal(), matrix[~np.eye(len(matrix), dtype=bool)]
        found |= {
            f"{prefix}same": float(same.mean()),
            f"{prefix}same_error": float(same.std(ddof=1) / math.sqrt(len(same))),
            f"{prefix}different": float(different.mean()),
            f"{prefix}different_sd": float(different.std(ddof=1)),
        }
        own = np.arange(len(matrix))
        found["retrieval"] = float(((matrix.argmax(1) == own).mean() + (matrix.argmax(0) == own).mean()) / 2)
    return found


def within(vectors: Array) -> dict:
    """Return how alike different facts of one set are."""
    off = ~np.eye(len(vectors), dtype=bool)
    raw, without_mean = cosines(vectors, vectors)[off], cosines(centred(vectors), centred(vectors))[off]
    return {
        "mean": float(raw.mean()),
        "sd": float(raw.std(ddof=1)),
        "centred_mean": float(without_mean.mean()),
        "centred_sd": float(without_mean.std(ddof=1)),
    }


MAX_RANK = 10  # singular directions that are compared
STANDS_OUT = 1e-6  # a singular value below this share of the largest is rounding: factors are saved in float32
TOP_NEURONS = 0.05
RANDOM_DRAWS = 20
# methods whose nulls are solved here: all that is wanted of a fact at its key, in one system
SOLVED = {"memit": "memit", "memit_merge": "memit", "pmet": "memit", "alphaedit": "alphaedit"}
SKIPPED = ("rome", "r_rome", "emmet")  # they have nulls, which are not recomputed
NO_NULLS = ("ultraedit", "fine_tuning", "ft_l", "ft_m", "lora", "ike")  # they store no v* at the subject


def check_updates(root: Path, params: dict, outcome: Outcome) -> None:
    """Hold the geometry of updates against the updates of each method, and against updates solved from the vectors."""
    for method in methods_of(params):
        file = f"reports/geometry/{method}.json"
        found = _json(root / file)
        outcome.compare(found, update_rows(root, params, method, found, outcome), file)


def update_rows(root: Path, params: dict, method: str, found: list[dict], outcome: Outcome) -> list[dict]:
    """Return what the geometry of one method's updates should say; of ``found`` it takes only what it skips."""
    languages, settings = params["grid"]["languages"], params["methods"][method]
    updates = {edit: Tensors(_update(root / "artifacts" / "updates", method, edit)) for edit in params["grid"]["edits"]}
    kind = settings.get("type", method)
    # a method that did not wait for vectors is compared without the nulls that are made of them
    nulls = _nulls(root, languages, kind, settings) if kind in SOLVED and method in params["grid"]["methods"] else None
    said = {row["layer"]: row["pairs"] for row in found}
    angles, rows = RandomAngles(params["seed"]), []
    for layer in sorted({layer for saved in updates.values() for layer in saved.header["layers"]}):
        pairs = run_pairs(updates, languages, layer)
        if nulls:
            pairs |= nulls(layer)
        elif kind in SKIPPED:
            left_out = {name: pair for name, pair in said.get(layer, {}).items() if name.startswith("half: ")}
            outcome.skipped += [f"{method}, layer {layer}: {name}" for name in left_out]
            pairs |= left_out
        else:
            assert kind in (*SOLVED, *NO_NULLS), f"{kind} is a new method: say here what its nulls are"
        if not pairs:
            continue
        saved = next(saved for saved in updates.values() if layer in saved.header["layers"])
        d_out, d_in = len(saved[f"left{layer}"]), saved[f"right{layer}"].shape[1]
        rank = min(pair["rank"] for pair in pairs.values())
        share = num_top(d_in) / d_in
        rows.append(
            {
                "layer": layer,
                "method": method,
                "pairs": pairs,
                "random_key_angle": angles.mean(d_in, rank),
                "random_value_angle": angles.mean(d_out, rank),
                "chance_neurons": share / (2 - share),
            }
        )
    return rows


def _update(folder: Path, method: str, edit: str) -> Path:
    """Return the file of an edit; methods had no folders of their own once."""
    old = folder / f"{method}-{edit}.safetensors"
    return old if old.exists() else folder / method / f"{edit}.safetensors"


def _nulls(root: Path, languages: Sequence[str], kind: str, settings: dict) -> Callable[[int], dict[str, dict]]:
    """Return what gives the pairs of updates of one layer that nobody applied."""
    wordings = Wordings.read(root, languages)
    moments = [Tensors(root / "artifacts" / "covariance" / f"{code}.safetensors") for code in languages]
    return lambda layer: null_pairs(wordings, layer, solver(SOLVED[kind], settings, pooled(moments, layer)))


def run_pairs(updates: Mapping[str, Tensors], languages: Sequence[str], layer: int) -> dict[str, dict]:
    """Return how alike the updates of this run are, as they were applied.

    Additivity is of the update for both languages' facts, which only a ``mixed`` edit of two languages is.
    """
    factors = {edit: (saved[f"left{layer}"], saved[f"right{layer}"]) for edit, saved in updates.items() if layer in saved.header["layers"]}
    both = factors.get("mixed") if len(languages) == 2 else None
    return {
        f"run: {a} and {b}, same facts": alikeness(factors[a], factors[b], both)
        for a, b in itertools.combinations(languages, 2)
        if a in factors and b in factors
    }


# keys and residuals (target value minus value; facts are rows) -> the update
Solve = Callable[[Array, Array], Factors]


def null_pairs(wordings: Wordings, layer: int, solve: Solve) -> dict[str, dict]:
    """Return how alike updates for half of the facts each are, and updates for the same facts in other words."""
    solved: dict[tuple[int, tuple[str, ...]], Factors] = {}

    def update(*parts: Part) -> Factors:
        keys, residuals = (np.concatenate([part.rows(name, layer) for part in parts]) for name in ("keys", "deltas"))
        if len(parts) > 1:
            return solve(keys, residuals)
        about = id(parts[0].vectors), parts[0].facts
        if about not in solved:
            solved[about] = solve(keys, residuals)
        return solved[about]

    def compared(left: Part, right: Part) -> dict:
        return alikeness(update(left), update(right), update(left, right))

    own, pairs = wordings.own, {}
    facts = next(iter(own.values())).facts
    half, rest = facts[::2], facts[1::2]
    for a, b in itertools.combinations(own, 2):
        pairs[f"half: {a} and {b}, same facts"] = compared(own[a].of(half), own[b].of(half))
        pairs[f"half: {a} and {b}, different facts"] = compared(own[a].of(half), own[b].of(rest))
    for code, other in wordings.reworded.items():
        pairs[f"half: {code} and {code}, different facts"] = compared(own[code].of(half), own[code].of(rest))
        if other.facts:
            pairs[f"half: {code} and {code}, same facts in other words"] = compared(own[code].of(other.facts), other)
    return pairs


def pooled(moments: Sequence[Tensors], layer: int) -> Array:
    """Return the second moment of all languages' keys together: each counts as many keys as it has seen."""
    counts = [dict(zip(saved.header["layers"], saved.header["num_keys"], strict=True))[layer] for saved in moments]
    return sum(count * saved[f"layer{layer}"] for count, saved in zip(counts, moments, strict=True)) / sum(counts)


def solver(formula: str, settings: dict, moment: Array) -> Solve:
    """Return what solves for an update by the formula that a paper prints."""
    identity = np.eye(len(moment))
    if formula == "memit":
        # arXiv 2210.07229, eq. 14: D = R' K (l C + K'K)^-1, with a share of C's mean diagonal on its diagonal
        old = settings["old_key_weight"] * (moment + settings["regularisation"] * moment.diagonal().mean() * identity)
        return lambda keys, residuals: (residuals.T, np.linalg.solve(old + keys.T @ keys, keys.T).T)
    # arXiv 2410.02355, eq. 14: D = R' K P (P K'K P + ridge)^-1. P: eigenvectors of least eigenvalue that hold a share of the trace
    values, vectors = linalg.eigh(moment)
    values = np.maximum(values, 0)
    null = vectors[:, np.cumsum(values) <= settings["null_energy"] * values.sum()]
    projection = null @ null.T

    def alphaedit(keys: Array, residuals: Array) -> Factors:
        projected = keys @ projection
        ridge = settings["ridge"] * (projected**2).sum(1).mean()
        return residuals.T, np.linalg.solve(projected.T @ projected + ridge * identity, projected.T).T

    return alphaedit


def singular(update: Factors) -> tuple[Array, Array, Array]:
    """Return the singular vectors of an update, on the value side and on the key side, and its singular values between them."""
    left, right = update
    basis, rest = np.linalg.qr(right.T)
    value_side, values, key_side = np.linalg.svd(left @ rest.T, full_matrices=False)
    return value_side, values, basis @ key_side.T


def num_top(d_in: int) -> int:
    """Return how many input neurons count as those that an update changes most."""
    return max(1, round(TOP_NEURONS * d_in))


def alikeness(left: Factors, right: Factors, both: Factors | None) -> dict:
    """Return how alike two updates are, from the matrices themselves; without ``both`` no additivity is defined."""
    one, other = left[0] @ left[1], right[0] @ right[1]
    sides = singular(left), singular(right)
    rank = min(MAX_RANK, *(int((values > STANDS_OUT * values[0]).sum()) for _, values, _ in sides))
    key, value = (np.rad2deg(linalg.subspace_angles(*(side[place][:, :rank] for side in sides))) for place in (2, 0))
    top = [set(np.argsort(-np.linalg.norm(matrix, axis=0))[: num_top(matrix.shape[1])].tolist()) for matrix in (one, other)]
    found = {
        "cosine": _cosine(one, other),
        "neurons": len(top[0] & top[1]) / len(top[0] | top[1]),
        "rank": rank,
        "key_angle_mean": float(key.mean()),
        "key_angle_min": float(key.min()),
        "value_angle_mean": float(value.mean()),
        "value_angle_min": float(value.min()),
        "norm_left": float(np.linalg.norm(one)),
        "norm_right": float(np.linalg.norm(other)),
    }
    if both is None:
        return found | {"additivity_error": NAN, "additivity_cosine": NAN}
    whole = both[0] @ both[1]
    error = np.linalg.norm(whole - (one + other)) / np.linalg.norm(whole)
    return found | {"additivity_error": float(error), "additivity_cosine": _cosine(whole, one + other)}


def _cosine(left: Array, right: Array) -> float:
    return float((left * right).sum() / (np.linalg.norm(left) * np.linalg.norm(right)))


class RandomAngles:
    """The angle of random directions, from the very draws of the project: torch's generator, seeded once for all layers."""

    def __init__(self, seed: int) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)
        self._draw = lambda *shape: torch.randn(*shape, generator=self._generator, dtype=torch.float64).numpy()

    def mean(self, dimension: int, rank: int) -> float:
        """Return the mean principal angle (degrees) of two random subspaces, averaged over draws."""
        angles = [linalg.subspace_angles(self._draw(dimension, rank), self._draw(dimension, rank)).mean() for _ in range(RANDOM_DRAWS)]
        return float(np.rad2deg(np.mean(angles)))


def main() -> None:
    """Print what was found in the folder that the command line names, or in this project."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    outcome = recompute(root)
    for line in [*outcome.disagreements, *(f"not recomputed: {name}" for name in outcome.skipped)]:
        print(line)
    print(f"{outcome.checked} values checked, {len(outcome.disagreements)} differ, {len(outcome.skipped)} pairs not recomputed")
    sys.exit(bool(outcome.disagreements))


if __name__ == "__main__":
    main()
