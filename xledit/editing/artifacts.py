"""Write and read the tensor files that stages exchange: second moments, edit vectors and edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Float

from xledit.editing.tensors import EditVectors, Facts, LayerMemory, LayerUpdate, SecondMoment
from xledit.storage import read_tensors, write_tensors


class _SecondMoments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layers: tuple[int, ...]
    num_keys: tuple[int, ...]


class _Vectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layers: tuple[int, ...]
    fact_ids: tuple[str, ...]


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    method: str
    edit: str
    layers: tuple[int, ...]
    contexts: dict[str, str]


@dataclass(frozen=True)
class SavedEdit:
    """One edit: by layer the update of the memory (float64), and by fact id the text that is put before a probe's prompt."""

    updates: dict[int, LayerUpdate]
    contexts: dict[str, str]


@dataclass(frozen=True)
class SavedVectors:
    """Edit vectors read from a file: keys, values and v* by layer; row i belongs to ``fact_ids[i]``. float64."""

    fact_ids: tuple[str, ...]
    memories: dict[int, LayerMemory]
    targets: dict[int, Float[torch.Tensor, "facts d_model"]]

    def facts(self, layer: int) -> Facts:
        """Return one layer's facts: keys and values of the unedited model, and v*."""
        return Facts(**vars(self.memories[layer]), targets=self.targets[layer])

    def of(self, fact_ids: Sequence[str], what: str) -> "SavedVectors":
        """Return the vectors of these facts, in this order. Raises ValueError, beginning with ``what``, when a fact has none."""
        places = {fact_id: place for place, fact_id in enumerate(self.fact_ids)}
        if len(places) != len(self.fact_ids):
            twice = len(self.fact_ids) - len(places)
            raise ValueError(f"{what}: {twice} facts have vectors twice; delete the file and run `dvc repro`")
        missing = [fact_id for fact_id in fact_ids if fact_id not in places]
        if missing:
            raise ValueError(
                f"{what} has {len(fact_ids)} facts, {len(missing)} of them without vectors, {missing[0]} first; "
                "raise grid.vectors, or null for all"
            )
        chosen = [places[fact_id] for fact_id in fact_ids]
        return SavedVectors(
            fact_ids=tuple(fact_ids),
            memories={
                layer: LayerMemory(**{name: tensor[chosen] for name, tensor in vars(memory).items()})
                for layer, memory in self.memories.items()
            },
            targets={layer: targets[chosen] for layer, targets in self.targets.items()},
        )

    def deltas(self, layer: int) -> Float[torch.Tensor, "facts d_model"]:
        """Return the change of each fact's value in one layer: v* minus the unedited value."""
        return self.targets[layer] - self.memories[layer].values


def save_second_moments(path: Path, moments: Mapping[int, SecondMoment]) -> None:
    """Write second moments by layer."""
    arrays = {f"layer{layer}": moment.matrix.numpy() for layer, moment in moments.items()}
    write_tensors(path, arrays, _SecondMoments(tuple(moments), tuple(moment.num_keys for moment in moments.values())))


def load_second_moments(path: Path) -> dict[int, SecondMoment]:
    """Return second moments by layer."""
    arrays, header = read_tensors(path, _SecondMoments)
    return {
        layer: SecondMoment(torch.from_numpy(arrays[f"layer{layer}"]), count)
        for layer, count in zip(header.layers, header.num_keys, strict=True)
    }


def save_vectors(path: Path, fact_ids: tuple[str, ...], vectors: EditVectors) -> None:
    """Write edit vectors: keys and values of the unedited model, and target values."""
    arrays: dict[str, np.ndarray] = {"losses": vectors.losses.numpy(), "steps": vectors.steps.numpy()}
    for layer, memory in vectors.memories.items():
        arrays |= {
            f"keys{layer}": memory.keys.numpy(),
            f"values{layer}": memory.values.numpy(),
            f"bare_keys{layer}": memory.bare_keys.numpy(),
            f"targets{layer}": vectors.targets[layer].numpy(),
        }
    write_tensors(path, arrays, _Vectors(tuple(vectors.memories), fact_ids))


def load_vectors(path: Path) -> SavedVectors:
    """Return the edit vectors of one language. Raises ValueError when shapes and facts do not agree."""
    arrays, header = read_tensors(path, _Vectors)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if any(len(tensor) != len(header.fact_ids) for tensor in tensors.values()):
        raise ValueError(f"{path}: holds {len(header.fact_ids)} facts and tensors of another length; delete it and run `dvc repro`")
    return SavedVectors(
        fact_ids=header.fact_ids,
        memories={
            layer: LayerMemory(**{name: tensors[f"{name}{layer}"] for name in ("keys", "values", "bare_keys")}) for layer in header.layers
        },
        targets={layer: tensors[f"targets{layer}"] for layer in header.layers},
    )


def load_languages(folder: Path, languages: Sequence[str]) -> dict[str, SavedVectors]:
    """Return the edit vectors of each language, of a folder with a file per language."""
    return {code: load_vectors(folder / f"{code}.safetensors") for code in languages}


def save_edit(path: Path, method: str, edit: str, saved: SavedEdit) -> None:
    """Write an edit. Each update is written as its two factors in float32, because the weights have no higher precision."""
    arrays = {}
    for layer, update in saved.updates.items():
        arrays |= {f"left{layer}": update.left.numpy().astype(np.float32), f"right{layer}": update.right.numpy().astype(np.float32)}
    write_tensors(path, arrays, _Edit(method, edit, tuple(saved.updates), saved.contexts))


def load_edit(path: Path) -> SavedEdit:
    """Return the edit of a file, its updates as float64."""
    arrays, header = read_tensors(path, _Edit)
    updates = {
        layer: LayerUpdate(torch.from_numpy(arrays[f"left{layer}"]).double(), torch.from_numpy(arrays[f"right{layer}"]).double())
        for layer in header.layers
    }
    return SavedEdit(updates, header.contexts)
