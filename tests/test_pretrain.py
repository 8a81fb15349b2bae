"""A run learns what a plain loop learns from each document alone; killed anywhere it goes on to the same bytes; spikes change nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer

import xledit.training.packing
import xledit.training.pretrain
from stages.training.pretrain import product_flops, stretches
from tests.tiny import SIZES, VOCABULARY, tiny_tokenizer
from xledit.models.fuxitranyu import FuxiTranyuConfig, FuxiTranyuForCausalLM
from xledit.storage import read_json, write_json
from xledit.training.packing import PackedWindows
from xledit.training.pretrain import (
    Checkpoint,
    PretrainParams,
    Speed,
    Step,
    _Steps,
    checkpoint_tokens,
    operations_per_token,
    pretrain,
    rows_per_step,
)
from xledit.training.shards import TokenShard, write_shard

ROOT = Path(__file__).parents[1]
CONTEXT = 16
ASKED = {"de": 250, "en": 700, "zh": 450}
PARAMS = PretrainParams(
    batch_tokens=64,
    late_batch_tokens=128,
    late_from_tokens=310,
    micro_batch=2,
    peak_lr=1e-2,
    warmup_steps=3,
    weight_decay=0.1,
    max_grad_norm=0.5,
    spike_multiple=4.0,
    spike_window=4,
    spike_patience=3,
    checkpoints=5,
    save_steps=4,
    activation_checkpointing=False,
)
STEPS = 13

# two processes, on a machine without a GPU
WORKER = """
import os, sys
from pathlib import Path
from tests import test_pretrain as test
if "ACCELERATE_USE_FSDP" in os.environ:
    # accelerate 1.15 knows FSDP on GPUs and their like only (AcceleratorState.__init__) and takes DDP on CPUs without a word;
    # torch's own FSDP2 works over gloo
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    start = AcceleratorState.__init__
    def with_fsdp(self, *arguments, fsdp_plugin=None, **others):
        start(self, *arguments, fsdp_plugin=fsdp_plugin, **others)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState.__init__ = with_fsdp
def tell(step):
    if step.step == int(sys.argv[2]):
        os._exit(9)
folder = Path(sys.argv[1])
model = test.tiny()
test.run(folder, folder / os.environ["RANK"], model=model, tell=tell)
print(type(next(model.parameters())).__name__)
"""


class Killed(BaseException):
    """The end of a run at one step."""


def tiny(dropout: float = 0.0) -> FuxiTranyuForCausalLM:
    torch.manual_seed(0)
    sizes = SIZES | {"num_hidden_layers": 2, "num_key_value_heads": 4, "intermediate_size": 48}
    return FuxiTranyuForCausalLM(FuxiTranyuConfig(**sizes, attention_dropout=dropout, initializer_range=0.1, use_cache=True))


def packed(folder: Path) -> PackedWindows:
    """Return windows of random documents, END in tiny_tokenizer being 1."""
    shards = {}
    for place, code in enumerate(ASKED):
        random = np.random.default_rng(place)
        lengths = random.integers(1, 30, 20)
        tokens = random.integers(2, VOCABULARY, lengths.sum()).astype(np.uint32)
        tokens[np.cumsum(lengths) - 1] = 1
        write_shard(folder / code, np.split(tokens, np.cumsum(lengths)[:-1]), code, part_tokens=100)
        shards[code] = TokenShard.open(folder / code, VOCABULARY)
    return PackedWindows(shards, ASKED, CONTEXT, seed=0)


def run(
    folder: Path,
    tokens: Path | None = None,
    *,
    model: FuxiTranyuForCausalLM | None = None,
    tell: Callable[[Step], None] = lambda step: None,
    **params: Any,
) -> Speed:
    """Train, with dropout, from ``folder``/tokens to ``folder``/out."""
    return pretrain(
        model or tiny(dropout=0.2),
        tiny_tokenizer(),
        packed(tokens or folder / "tokens"),
        msgspec.structs.replace(PARAMS, **params),
        seed=3,
        work=folder / "work",
        out=folder / "out",
        peak_flops=1e9,
        tell=tell,
    )


def killed_at(number: int) -> Callable[[Step], None]:
    def tell(step: Step) -> None:
        if step.step == number:
            raise Killed

    return tell


def saved(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def log(folder: Path) -> list[Step]:
    return read_json(folder / "out" / "log.json", list[Step])


def kill(folder: Path, step: int = 6) -> Path:
    """Kill a run and return the folder that it goes on from."""
    with pytest.raises(Killed):
        run(folder, tell=killed_at(step))
    return max(folder.glob("work/*/checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime).parent


@pytest.fixture(scope="module")
def dropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with dropout."""
    folder = tmp_path_factory.mktemp("dropped")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without dropout, of two seconds by a clock of our own."""
    folder = tmp_path_factory.mktemp("plain")
    seconds = iter([100.0, 102.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xledit.training.pretrain, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
        write_json(folder / "speed.json", run(folder, model=tiny()))
    return folder


def rate(step: int) -> float:
    """Return the learning rate of a step that counts from 0: linear, then a cosine to a tenth at the last one."""
    if step < PARAMS.warmup_steps:
        return PARAMS.peak_lr * (step + 1) / PARAMS.warmup_steps
    progress = (step + 1 - PARAMS.warmup_steps) / (STEPS - PARAMS.warmup_steps)
    return PARAMS.peak_lr * (0.1 + 0.9 * (1 + np.cos(np.pi * progress)) / 2)


def test_a_run_learns_what_a_plain_loop_learns_from_each_document_alone(plain: Path, tmp_path: Path) -> None:
    """Packing, masks, accumulation, batches that grow, weight decay, clipping, schedule and the log, in one."""
    data, model, steps = packed(tmp_path), tiny(), log(plain)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": PARAMS.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    start = tokens = 0
    assert len(steps) == STEPS
    for step, found in enumerate(steps):
        rows = 4 if tokens < PARAMS.late_from_tokens else 8
        tokens += rows * CONTEXT
        losses: dict[str, list[torch.Tensor]] = {}
        for window in (data[index] for index in range(start, start + rows)):
            borders = [*np.flatnonzero(window["position_ids"] == 0), CONTEXT]
            for begin, end in pairwise(borders):
                document = torch.tensor(window["input_ids"][begin:end])
                if len(document) > 1:
                    logits = model(input_ids=document[None], use_cache=False).logits[0]
                    code = data.languages[window["languages"][begin]]
                    losses.setdefault(code, []).append(cross_entropy(logits[:-1], document[1:], reduction="none"))
        start += rows
        by_language = {code: torch.cat(some) for code, some in losses.items()}
        loss = torch.cat(list(by_language.values())).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), PARAMS.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        assert (found.step, found.tokens, found.skipped) == (step + 1, tokens, False)
        assert found.loss == pytest.approx(loss.item(), abs=2e-5)
        assert found.grad_norm == pytest.approx(norm.item(), rel=1e-3)
        assert found.learning_rate == pytest.approx(rate(step))
        assert found.languages == pytest.approx({code: some.mean().item() for code, some in by_language.items()}, abs=2e-5)
    assert steps[-1].loss is not None and steps[0].loss is not None and steps[-1].loss < steps[0].loss


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    dropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def until(number: int) -> Callable[[Step], None]:
        def tell(step: Step) -> None:
            heard.append(step.step)
            killed_at(number)(step)

        return tell

    for step in (2, 6, 8, 12):
        with pytest.raises(Killed):
            run(tmp_path, tell=until(step))
    # while it saves what it goes on from, when the weights are there already; and while it hands on
    for module, name in ((Trainer, "_save_rng_state"), (xledit.training.pretrain, "_link")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, lambda *arguments: (_ for _ in ()).throw(Killed))
            run(tmp_path, tell=until(0))
    run(tmp_path, tell=until(0))
    assert saved(tmp_path / "out") == saved(dropped / "out")
    # each time from the last step that was saved whole: every fourth, and 5, 7, 9, 11 and 13, of which checkpoints are kept
    assert heard == [1, 2, *range(1, 7), 6, 7, 8, *range(8, 13), 12, 12, 13]


def test_checkpoints_can_be_loaded_and_hold_no_pickle(dropped: Path) -> None:
    folders = sorted((dropped / "out").glob("checkpoint-*"))
    marks = [read_json(folder / "checkpoint.json", Checkpoint) for folder in folders]
    steps = log(dropped)
    assert [mark.number for mark in marks] == [1, 2, 3, 4, 5]
    assert [(mark.tokens, mark.loss) for mark in marks] == [(steps[mark.step - 1].tokens, steps[mark.step - 1].loss) for mark in marks]
    assert marks[-1].step == STEPS
    for mark, tokens in zip(marks, checkpoint_tokens(steps[-1].tokens, 5), strict=True):
        assert steps[mark.step - 1].tokens - PARAMS.late_batch_tokens < tokens <= mark.tokens
    assert {path.suffix for path in (dropped / "out").rglob("*.*")} == {".json", ".safetensors"}
    first, last = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (folders[0], folders[-1]))
    assert not any(torch.equal(first[name], last[name]) for name in first)
    assert len(AutoTokenizer.from_pretrained(folders[-1])) == VOCABULARY
    assert AutoConfig.from_pretrained(folders[-1]).use_cache


def test_only_the_newest_step_keeps_what_a_run_goes_on_from(dropped: Path) -> None:
    assert {path.parent.name for path in dropped.glob("work/*/*/optimizer.pt")} == {f"checkpoint-{STEPS}"}
    assert len(list(dropped.glob("work/*/checkpoint-*"))) == PARAMS.checkpoints


@pytest.mark.parametrize("factor", [100.0, float("nan")])
def test_a_spike_changes_nothing_and_is_logged(plain: Path, tmp_path: Path, factor: float) -> None:
    model = tiny()
    before: dict[str, torch.Tensor] = {}

    def tell(step: Step) -> None:
        with torch.no_grad():
            if step.step == 7:
                before.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
                model.lm_head.weight *= factor
            if step.step == 8:
                model.lm_head.weight.copy_(before["lm_head.weight"])
                assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    run(tmp_path, model=model, tell=tell, activation_checkpointing=True)
    steps = log(tmp_path)
    # and activations that are computed twice are the same
    assert [step.loss for step in steps[:7]] == pytest.approx([step.loss for step in log(plain)[:7]])
    assert [step.step for step in steps if step.skipped] == [8]
    assert (steps[7].loss is None) == np.isnan(factor)
    assert all(step.loss is not None and np.isfinite(step.loss) for step in steps[8:])
    assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])


def test_a_run_that_has_diverged_ends_and_says_what_to_do(tmp_path: Path) -> None:
    model = tiny()

    def tell(step: Step) -> None:
        if step.step == 7:
            with torch.no_grad():
                model.lm_head.weight *= 100

    with pytest.raises(ValueError, match=r"step 10: 3 updates in a row were spikes, .* has diverged: lower peak_lr"):
        run(tmp_path, model=model, tell=tell)


def test_other_settings_start_anew(tmp_path: Path) -> None:
    kill(tmp_path)
    heard: list[int] = []

    def tell(step: Step) -> None:
        heard.append(step.step)
        raise Killed

    for change in ({"peak_lr": 2e-2}, {"model": tiny()}, {"save_steps": 3}, {}):
        with pytest.raises(Killed):
            run(tmp_path, tell=tell, **change)
    assert heard[:2] == [1, 1] and min(heard[2:]) > 1


def test_other_code_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(tmp_path)
    heard: list[int] = []

    def tell(step: Step) -> None:
        heard.append(step.step)
        raise Killed

    code = tmp_path / "packing.py"
    code.write_bytes(Path(xledit.training.packing.__file__).read_bytes() + b"# mended")
    monkeypatch.setattr(xledit.training.packing, "__file__", str(code))
    with pytest.raises(Killed):
        run(tmp_path, tell=tell)
    assert heard == [1]


def test_a_clock_that_jumps_does_not_move_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [50.0, 2.0, 2.0, 1e-9, 2.0, 2.0, 300.0, 1e-9]  # the first warms up
    clock = iter([moment for took in seconds for moment in (0.0, took)])
    monkeypatch.setattr("stages.training.pretrain.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert product_flops("cpu", size=4) == 2 * 4**3 / 2.0


def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    folder = kill(tmp_path)

    class Planted:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
            return os.mkdir, (str(tmp_path / "run"),)

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        kept = (folder / name).read_bytes()
        torch.save(Planted(), folder / name)
        with pytest.raises(ValueError, match=rf"{folder.name}: what the run goes on from is not tensors and numbers alone; delete"):
            run(tmp_path)
        (folder / name).write_bytes(kept)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_gone_is_missed(dropped: Path, tmp_path: Path) -> None:
    shutil.copytree(dropped, tmp_path, dirs_exist_ok=True)
    next(tmp_path.glob("work/*/checkpoint-5/checkpoint.json")).unlink()
    with pytest.raises(ValueError, match=r"the checkpoints of steps 5 are gone; delete the folder and run again"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ({"vocab_size": 600}, {}, "the tokenizer has 500 tokens and the model 600"),
        ({"max_position_embeddings": 8}, {}, "windows have 16 tokens and the model 8 positions"),
        ({}, {"batch_tokens": 65}, "batch_tokens is 65; it must be a multiple of the context, 16"),
        ({}, {"batch_tokens": 16_000, "late_batch_tokens": 16_000}, "do not fill one batch of 16000 tokens; lower batch_tokens"),
        ({}, {"checkpoints": 14}, "14 checkpoints of 13 steps or tokens; lower checkpoints"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, model: dict[str, int], params: dict[str, int], message: str) -> None:
    sizes = SIZES | {"num_hidden_layers": 1, "num_key_value_heads": 4} | model
    with pytest.raises(ValueError, match=message):
        run(tmp_path, model=FuxiTranyuForCausalLM(FuxiTranyuConfig(**sizes)), **params)


def test_flash_attention_takes_one_window_at_a_time(tmp_path: Path) -> None:
    model = tiny()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="set micro_batch to 1, or use sdpa"):
        run(tmp_path, model=model)


@pytest.mark.parametrize(
    "setting", [{"micro_batch": 0}, {"save_steps": 0}, {"peak_lr": 0.0}, {"spike_multiple": 1.0}, {"late_batch_tokens": 32}]
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}.* must be"):
        PretrainParams(**(msgspec.structs.asdict(PARAMS) | setting))


@settings(max_examples=100, deadline=None)
@given(number=st.integers(1, 200), more=st.integers(0, 10**12))
def test_checkpoints_ascend_to_the_last_token(number: int, more: int) -> None:
    tokens = checkpoint_tokens(number + more, number)
    assert len(tokens) == number and tokens[-1] == number + more
    assert all(left < right for left, right in zip([0, *tokens], tokens, strict=False))


def test_checkpoints_double_and_then_are_evenly_spaced() -> None:
    tokens = checkpoint_tokens(606 * 10**9)
    assert len(tokens) == 58
    even = 606e9 / 49
    assert tokens[9:] == pytest.approx([even * number for number in range(1, 50)])
    assert tokens[:9] == pytest.approx([even / 2**back for back in range(9, 0, -1)])


def test_more_checkpoints_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="58 checkpoints of 57 steps or tokens"):
        checkpoint_tokens(57)


@settings(max_examples=200, deadline=None)
@given(windows=st.integers(1, 500), early=st.integers(1, 20), growth=st.integers(0, 20), switch=st.integers(0, 5000))
def test_batches_grow_where_they_should_and_no_full_one_is_left_out(windows: int, early: int, growth: int, switch: int) -> None:
    late = early + growth
    params = msgspec.structs.replace(PARAMS, batch_tokens=early * 8, late_batch_tokens=late * 8, late_from_tokens=switch)
    expected, left = list[int](), windows
    while left >= (size := early if sum(expected) * 8 < switch else late):
        expected.append(size)
        left -= size
    if expected:
        assert rows_per_step(windows, 8, params).tolist() == expected
    else:
        with pytest.raises(ValueError, match="do not fill one batch"):
            rows_per_step(windows, 8, params)


def test_processes_take_equal_shares_of_each_step() -> None:
    steps = _Steps(np.array([4, 8]), 2)
    assert list(steps) == [range(2), range(2, 4), range(4, 8), range(8, 12)] and len(steps) == 4
    with pytest.raises(ValueError, match="a batch of 4 windows cannot be shared out among 3 processes; change batch_tokens"):
        _Steps(np.array([4, 6]), 3)


@pytest.mark.parametrize("tied", [False, True])
def test_operations_are_those_that_torch_counts(tied: bool) -> None:
    """All but norms and biases, which the formula takes for matrices."""
    sizes = SIZES | {"num_key_value_heads": 4, "intermediate_size": 256}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tied, attn_implementation="eager"))
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.zeros(1, 64, dtype=torch.long), use_cache=False).logits.sum().backward()
    assert operations_per_token(model, 64) * 64 == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_speed_is_tokens_over_seconds_and_a_share_of_the_stated_peak(plain: Path) -> None:
    speed, tokens = read_json(plain / "speed.json", Speed), log(plain)[-1].tokens
    assert speed.tokens_per_second == tokens / 2
    assert speed.share_of_peak == pytest.approx(tokens / 2 * operations_per_token(tiny(), CONTEXT) / 1e9)


def launch(folder: Path, kill_at: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run two processes of ``WORKER``, in ``folder``."""
    (folder / "worker.py").write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "worker.py",
        str(folder),
        str(kill_at),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "kind"), [({}, "Parameter"), (FSDP, "DTensor")], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_learns_also_when_killed(plain: Path, tmp_path: Path, environment: dict[str, str], kind: str) -> None:
    assert launch(tmp_path, kill_at=6, **environment).returncode
    assert list(tmp_path.glob("work/*/checkpoint-*/checkpoint.json"))
    done = launch(tmp_path, **environment)
    assert done.returncode == 0 and done.stdout.count(kind) == 2, done.stdout
    for one, two in zip(log(plain), log(tmp_path), strict=True):
        assert (one.loss, one.grad_norm) == pytest.approx((two.loss, two.grad_norm), abs=1e-5)
        assert one.languages == pytest.approx(two.languages, abs=1e-5)
    for number in range(1, 6):
        one, two = (load_file(folder / f"out/checkpoint-{number}/model.safetensors") for folder in (plain, tmp_path))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".json", ".safetensors"}


@pytest.mark.slow
def test_sharded_fsdp_checkpoints_are_refused_since_they_are_pickles(tmp_path: Path) -> None:
    done = launch(tmp_path, **FSDP | {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"})
    assert done.returncode and "set fsdp_state_dict_type to FULL_STATE_DICT" in done.stdout


def test_the_loss_up_to_a_checkpoint_is_the_mean_over_tokens() -> None:
    def step(tokens: int, loss: float | None, **languages: tuple[float, int]) -> Step:
        nats, predicted = ({code: pair[place] for code, pair in languages.items()} for place in (0, 1))
        return Step(
            step=1,
            tokens=tokens,
            loss=loss,
            grad_norm=1.0,
            learning_rate=1.0,
            skipped=loss is None,
            languages=nats,  # pyright: ignore[reportArgumentType]
            predicted=predicted,  # pyright: ignore[reportArgumentType]
        )

    steps = [
        step(64, 4.0, en=(4.0, 60)),
        step(128, 1.0, en=(1.0, 20), zh=(1.0, 100)),
        step(192, None, en=(0.0, 9)),
        step(256, 2.0, zh=(2.0, 60)),
    ]
    first, last = stretches(steps, [128, 256])
    assert (first.loss, first.languages, first.skipped) == (2.0, {"en": 3.25, "zh": 1.0}, 0)
    assert (last.loss, last.languages["zh"], last.skipped) == (2.0, 2.0, 1)
