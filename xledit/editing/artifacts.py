"""The tensor artifacts that stages hand on: second moments, edit vectors and updates, to files and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Float

from xledit.editing.memory import LayerMemory
from xledit.editing.second_moment import SecondMoment
from xledit.editing.solvers import LayerUpdate
from xledit.editing.targets import EditVectors
from xledit.storage import read_tensors, write_tensors


class _Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layers: tuple[int, ...]
    num_keys: tuple[int, ...]


class _Vectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layers: tuple[int, ...]
    fact_ids: tuple[str, ...]


class _Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    method: str
    edit: str
    layers: tuple[int, ...]


@dataclass(frozen=True)
class SavedVectors:
    """Edit vectors as read back: by layer, with the facts they belong to. float64."""

    fact_ids: tuple[str, ...]
    memories: dict[int, LayerMemory]
    targets: dict[int, Float[torch.Tensor, "facts d_model"]]

    def deltas(self, layer: int) -> Float[torch.Tensor, "facts d_model"]:
        """Return v* minus v."""
        return self.targets[layer] - self.memories[layer].values


def save_moments(path: Path, moments: Mapping[int, SecondMoment]) -> None:
    """Write second moments by layer."""
    arrays = {f"layer{layer}": moment.matrix.numpy() for layer, moment in moments.items()}
    write_tensors(path, arrays, _Moments(tuple(moments), tuple(moment.num_keys for moment in moments.values())))


def load_moments(path: Path) -> dict[int, SecondMoment]:
    """Return second moments by layer."""
    arrays, header = read_tensors(path, _Moments)
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
        memories={layer: LayerMemory(tensors[f"keys{layer}"], tensors[f"values{layer}"]) for layer in header.layers},
        targets={layer: tensors[f"targets{layer}"] for layer in header.layers},
    )


def save_updates(path: Path, method: str, edit: str, updates: Mapping[int, LayerUpdate]) -> None:
    """Write one update per layer as its two factors, float32: the weights they will be added to are no finer."""
    arrays = {}
    for layer, update in updates.items():
        arrays |= {f"left{layer}": update.left.numpy().astype(np.float32), f"right{layer}": update.right.numpy().astype(np.float32)}
    write_tensors(path, arrays, _Update(method, edit, tuple(updates)))


def load_updates(path: Path) -> dict[int, LayerUpdate]:
    """Return one update per layer, float64."""
    arrays, header = read_tensors(path, _Update)
    return {
        layer: LayerUpdate(torch.from_numpy(arrays[f"left{layer}"]).double(), torch.from_numpy(arrays[f"right{layer}"]).double())
        for layer in header.layers
    }
