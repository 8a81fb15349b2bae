"""How every stage sets up torch: threads, precision, device."""

import os

import msgspec
import torch
import transformers

from xledit.params import section


class RuntimeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``runtime`` section of params.yaml.

    ``threads`` is fixed because float32 results depend on it. ``device`` is ``auto`` (CUDA, MPS, CPU) or a torch device.
    ``matmul_precision`` is torch's float32 setting: ``highest``, ``high`` or ``medium``.
    """

    device: str
    matmul_precision: str
    threads: int


def start_torch() -> RuntimeParams:
    """Fix torch's threads and precision from params.yaml. Returns the section."""
    runtime = section("runtime", RuntimeParams)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: logits of a large vocabulary fault less
    torch.set_num_threads(runtime.threads)
    torch.set_float32_matmul_precision(runtime.matmul_precision)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return runtime
