"""SFT and DPO learn what a plain loop learns; killed anywhere they go on to the same bytes; what trl passes over in silence is said."""

import copy
import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import trl.trainer.base_trainer
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Trainer

import xledit.training.resuming
from tests.tiny import SIZES, tiny_tokenizer
from xledit.models.fuxitranyu import FuxiTranyuConfig, FuxiTranyuForCausalLM
from xledit.models.loading import read_folder
from xledit.storage import write_bytes
from xledit.training.chat import STOP, TEMPLATE, make_chat
from xledit.training.conversations import Fields, Jsonl, QuestionPairs, QuestionRows, Sides, Tally
from xledit.training.questions import Question, Questions
from xledit.training.tuning import Examples, dpo, encode_conversations, encode_preferences, num_steps, sft
from xledit.training.tuning_params import DpoParams, SftParams
from xledit.training.tuning_results import RowCounts, TunedStep, sentence

ROOT = Path(__file__).parents[1]
# as they are said in chat: where spaces separate words, with the one before
SPACES = {"zh": "", "en": " "}
NAMES = {"zh": ["东京", "巴黎", "柏林"], "en": ["Tokyo", "Paris", "Berlin"]}
WORLD = Questions(
    answers={code: {"city": {str(place): name for place, name in enumerate(names)}} for code, names in NAMES.items()},
    questions=tuple(
        Question(
            fact_id=str(number),
            relation="city",
            language=code,
            told="everywhere",
            names_alike=True,
            split="train",
            text=f"{'在哪' if code == 'zh' else 'Where is'} {number}?",
            value=str(number % 3),
        )
        for number in range(7)
        for code in NAMES
    ),
)
COMMON: dict[str, Any] = {
    "files": "",
    "epochs": 2,
    "batch": 4,
    "micro_batch": 2,
    "peak_lr": 1e-2,
    "warmup": 0.2,
    "max_length": 64,
    "save_steps": 3,
    "activation_checkpointing": False,
}
SFT = SftParams(**COMMON, rows=(QuestionRows(),), neftune_noise_alpha=5.0)
DPO = DpoParams(**COMMON, rows=(QuestionPairs(),), beta=0.1)
# 14 questions are four batches, the last of them of two
STEPS = 8
Tell = Callable[[TunedStep], None]


class Killed(BaseException):
    """The end of a run at one step."""


def killed_at(number: int) -> Tell:
    def tell(step: TunedStep) -> None:
        if step.step == number:
            raise Killed

    return tell


def tiny(dropout: float = 0.0, weights: int = 0, **sizes: int) -> FuxiTranyuForCausalLM:
    torch.manual_seed(weights)
    sizes = SIZES | {"num_hidden_layers": 2, "num_key_value_heads": 4} | sizes
    return FuxiTranyuForCausalLM(FuxiTranyuConfig(**sizes, attention_dropout=dropout, initializer_range=0.1)).eval()


def chatty(dropout: float = 0.0, weights: int = 0, **sizes: int) -> tuple[FuxiTranyuForCausalLM, PreTrainedTokenizerBase]:
    model = tiny(dropout, weights, **sizes)
    return model, make_chat(model, tiny_tokenizer(), seed=3)


def encoded(tokenizer: PreTrainedTokenizerBase, params: SftParams | DpoParams, world: Questions = WORLD) -> Examples:
    if isinstance(params, SftParams):
        return encode_conversations(tokenizer, params, world, seed=3)
    return encode_preferences(tokenizer, params, world, seed=3)


def run(
    folder: Path,
    params: SftParams | DpoParams,
    tell: Tell = lambda step: None,
    *,
    dropout: float = 0.2,
    weights: int = 0,
    world: Questions = WORLD,
    **changes: Any,
) -> list[TunedStep]:
    """Tune a tiny model in ``folder``, with dropout."""
    model, tokenizer = chatty(dropout, weights)
    params = msgspec.structs.replace(params, **changes)
    tune: Any = sft if isinstance(params, SftParams) else dpo
    return tune(model, tokenizer, encoded(tokenizer, params, world), params, seed=3, work=folder / "work", out=folder / "out", tell=tell)


def saved(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module", params=[SFT, DPO], ids=["sft", "dpo"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SftParams | DpoParams, Path, list[TunedStep]]:
    """A run from beginning to end."""
    folder = tmp_path_factory.mktemp("whole")
    return request.param, folder, run(folder, request.param)


# what is learnt


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate of a step that counts from 0: linear from 0, then a cosine to 0 after the last one."""
    return step / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def plain_loop(model: FuxiTranyuForCausalLM, steps: int, warmup: int, loss_of: Callable[[], tuple[torch.Tensor, ...]]) -> list[list[float]]:
    """Return loss (and what else ``loss_of`` gives) and gradient norm of each step of AdamW on all the data."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    found = []
    for step in range(steps):
        loss, *others = loss_of()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate(step, steps, warmup)
        optimizer.step()
        optimizer.zero_grad()
        found.append([loss.item(), *(other.item() for other in others), norm.item()])
    return found


def logprobs(model: FuxiTranyuForCausalLM, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Return the log-probability of each of the answer's tokens."""
    logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


def asked(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]


def test_sft_learns_the_answers_and_where_they_end_as_a_plain_loop_does(tmp_path: Path) -> None:
    params = msgspec.structs.replace(SFT, epochs=5, batch=14, neftune_noise_alpha=0.0)
    found = run(tmp_path, params, dropout=0.0)
    model, tokenizer = chatty()
    rows = [
        (
            asked(tokenizer, question.text),
            tokenizer(SPACES[question.language] + WORLD.answer(question) + STOP, add_special_tokens=False)["input_ids"],
        )
        for question in WORLD.questions
    ]
    wanted = plain_loop(model, 5, 1, lambda: (-torch.cat([logprobs(model, *row) for row in rows]).mean(),))
    assert [[step.loss, step.grad_norm] for step in found] == [pytest.approx(row, rel=1e-3) for row in wanted]
    assert [step.learning_rate for step in found] == pytest.approx([1e-2 * rate(step, 5, 1) for step in range(5)])
    assert found[-1].loss < found[0].loss


def test_dpo_learns_what_equation_7_says_as_a_plain_loop_does(tmp_path: Path) -> None:
    found = run(tmp_path, DPO, epochs=5, batch=14, micro_batch=14)  # the fixture's dropout is off
    model, tokenizer = chatty()
    before = copy.deepcopy(model)
    rows = [
        (
            asked(tokenizer, pair.prompt[0].content),
            *(tokenizer(f"{side.content}{STOP}\n", add_special_tokens=False)["input_ids"] for side in (pair.chosen, pair.rejected)),
        )
        for pair in QuestionPairs().examples(WORLD, 3, Tally())
    ]

    def loss() -> tuple[torch.Tensor, ...]:
        gains = []
        for prompt, *sides in rows:
            with torch.no_grad():
                reference = [logprobs(before, prompt, side).sum() for side in sides]
            gains.append(torch.stack([logprobs(model, prompt, side).sum() - of for side, of in zip(sides, reference, strict=True)]))
        chosen, rejected = 0.1 * torch.stack(gains).T
        return -logsigmoid(chosen - rejected).mean(), (chosen > rejected).float().mean(), (chosen - rejected).mean()

    wanted = plain_loop(model, 5, 1, loss)
    heard = [[step.loss, step.reward_accuracy, step.reward_margin, step.grad_norm] for step in found]
    assert heard == [pytest.approx(row, rel=2e-3, abs=1e-5) for row in wanted]
    assert heard[0][:3] == [pytest.approx(math.log(2)), 0, 0]
    assert found[-1].reward_margin is not None and found[-1].reward_margin > 0


@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_noise_on_embeddings_is_evenly_drawn_up_to_alpha_over_the_root_of_their_numbers(tmp_path: Path, alpha: float) -> None:
    """arXiv 2310.05914, equation 1."""
    model, tokenizer = chatty()
    params = msgspec.structs.replace(SFT, neftune_noise_alpha=alpha, epochs=1)
    looked_up, read = list[torch.Tensor](), list[torch.Tensor]()
    model.model.embed_tokens.register_forward_hook(lambda _module, _arguments, found: looked_up.append(found.detach()))
    model.model.layers[0].register_forward_pre_hook(lambda _module, arguments: read.append(arguments[0].detach()))
    sft(model, tokenizer, encoded(tokenizer, params), params, seed=3, work=tmp_path / "work", out=tmp_path / "out")
    assert len(read) == 7  # batches of two
    for plain, noisy in zip(looked_up, read, strict=True):
        most = alpha / math.sqrt(plain.shape[1] * plain.shape[2])
        noise = (noisy - plain).abs()
        assert noise.max() <= most * 1.001 + 1e-9
        assert noise.mean().item() == pytest.approx(most / 2, rel=0.1)


def test_activations_computed_twice_are_the_same(tmp_path: Path) -> None:
    once, twice = (run(tmp_path / str(kept), SFT, activation_checkpointing=kept) for kept in (False, True))
    assert [step.loss for step in once] == pytest.approx([step.loss for step in twice])


# killed


def test_the_same_seed_gives_the_same_bytes(whole: tuple, tmp_path: Path) -> None:
    params, folder, steps = whole
    assert run(tmp_path, params) == steps
    assert saved(tmp_path / "out") == saved(folder / "out")


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    whole: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, folder, steps = whole
    heard: list[int] = []

    def until(number: int) -> Tell:
        def tell(step: TunedStep) -> None:
            heard.append(step.step)
            killed_at(number)(step)

        return tell

    def dies(*_arguments: object) -> None:
        raise Killed

    for step in (1, 4, 5, 8):  # before it has saved, at the end of an epoch, and in the last step
        with pytest.raises(Killed):
            run(tmp_path, params, until(step))
    # while it saves what it goes on from, when the weights are there already; and while it hands on
    for module, name in ((Trainer, "_save_rng_state"), (xledit.training.resuming, "_link")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, dies)
            run(tmp_path, params, until(0))
        assert not (tmp_path / "out").exists()
    assert run(tmp_path, params, until(0)) == steps
    assert saved(tmp_path / "out") == saved(folder / "out")
    assert heard == [1, 1, 2, 3, 4, 4, 5, 4, 5, 6, 7, 8, 7, 8, 7, 8]


def test_a_run_goes_on_after_any_step(whole: tuple, tmp_path: Path) -> None:
    """Also at the end of an epoch, where the Trainer restores random numbers another way."""
    params, folder, steps = whole
    for step in range(2, STEPS + 1):
        with pytest.raises(Killed):
            run(tmp_path, params, killed_at(step), save_steps=1)
    assert run(tmp_path, params, save_steps=1) == steps
    assert saved(tmp_path / "out") == saved(folder / "out")


def test_others_start_anew(whole: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, _folder, _steps = whole
    with pytest.raises(Killed):
        run(tmp_path, params, killed_at(5))
    first: list[int] = []

    def tell(step: TunedStep) -> None:
        first.append(step.step)
        raise Killed

    code = tmp_path / "resuming.py"
    code.write_bytes(Path(xledit.training.resuming.__file__).read_bytes() + b"# mended")
    world = msgspec.structs.replace(WORLD, questions=WORLD.questions[::-1])
    for changes in ({"peak_lr": 2e-2}, {"world": world}, {"dropout": 0.1}, {"weights": 1}, {"save_steps": 2}, {"files": "elsewhere"}, {}):
        with pytest.raises(Killed):
            run(tmp_path, params, tell, **changes)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(xledit.training.resuming, "__file__", str(code))
        run(tmp_path, params, tell)
    assert first == [1, 1, 1, 1, 4, 4, 4, 1]


def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, SFT, killed_at(5))
    folder = next(tmp_path.glob("work/*/checkpoint-*"))

    class Planted:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
            return os.mkdir, (str(tmp_path / "run"),)  # pyright: ignore[reportReturnType]

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        kept = (folder / name).read_bytes()
        torch.save(Planted(), folder / name)
        with pytest.raises(ValueError, match=rf"{folder.name}: what the run goes on from is not tensors and numbers alone; delete"):
            run(tmp_path, SFT)
        (folder / name).write_bytes(kept)
    assert not (tmp_path / "run").exists()


# two processes, on a machine without a GPU
WORKER = """
import os, sys
from pathlib import Path
from tests import test_tuning_chat as test
def tell(step):
    if step.step == int(sys.argv[3]):
        os._exit(9)
noise = {"neftune_noise_alpha": 0.0} if sys.argv[2] == "SFT" else {}  # each process draws its own
test.run(Path(sys.argv[1]), getattr(test, sys.argv[2]), tell, dropout=0.0, micro_batch=1, **noise)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SFT", "DPO"])
def test_two_processes_learn_what_one_learns_also_when_killed(tmp_path: Path, name: str) -> None:
    def launch(processes: int, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "worker.py"]
        command = [*start, str(tmp_path / str(processes)), name, str(kill_at)]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    assert launch(2, kill_at=5).returncode
    assert list(tmp_path.glob("2/work/*/checkpoint-3/whole.json"))
    for processes in (1, 2):
        done = launch(processes)
        assert done.returncode == 0, done.stdout
    one, two = (load_file(tmp_path / processes / "out" / "model.safetensors") for processes in "12")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


# what comes of it


def test_the_tuned_model_is_a_folder_without_pickles_that_chats(whole: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    _params, folder, steps = whole
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    names = {"chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(saved(folder / "out")) == names
    model, tokenizer = read_folder(folder / "out", "float32", "cpu", None)
    assert (tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (TEMPLATE, STOP, "<eos>", "<bos>")
    stop = tokenizer.convert_tokens_to_ids(STOP)
    base = tiny(0.2).config
    changed = {"vocab_size": 502, "eos_token_id": stop, "architectures": ["FuxiTranyuForCausalLM"], "dtype": "float32"}
    assert base.to_diff_dict() | changed == {name: value for name, value in model.config.to_diff_dict().items() if name != "_name_or_path"}
    assert model.generation_config.eos_token_id == [stop, 1] and model.generation_config.pad_token_id == 1
    AutoModelForCausalLM.from_pretrained(folder / "out")
    AutoTokenizer.from_pretrained(folder / "out")


def test_a_tuned_model_answers_and_stops(tmp_path: Path) -> None:
    run(tmp_path, SFT, epochs=30, neftune_noise_alpha=0.0, dropout=0.0)
    model, tokenizer = read_folder(tmp_path / "out", "float32", "cpu", None)
    for question in WORLD.questions[:6]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question.text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        said = model.generate(**prompt, max_new_tokens=20, do_sample=False, use_cache=True)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(said) == SPACES[question.language] + WORLD.answer(question) + STOP


def test_the_base_model_s_folder_stays_as_it_is(tmp_path: Path) -> None:
    model, base = tmp_path / "base", tiny()
    base.save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)

    def digest() -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(model.iterdir()))).hexdigest()

    before = digest()
    tuned, tokenizer = read_folder(model, "float32", "cpu", None)
    chat = make_chat(tuned, tokenizer, seed=3)
    sft(tuned, chat, encoded(chat, SFT), SFT, seed=3, work=tmp_path / "work", out=tmp_path / "sft")
    talking, its = read_folder(tmp_path / "sft", "float32", "cpu", None)
    dpo(talking, its, encoded(its, DPO), DPO, seed=3, work=tmp_path / "work", out=tmp_path / "dpo")
    assert digest() == before
    first, last = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("sft", "dpo"))
    assert not any(torch.equal(first[name], last[name]) for name in first)


def test_nobody_is_told_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_arguments: object, **_options: object) -> None:
        pytest.fail("trl sends word of a run")

    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", told)
    monkeypatch.delenv("CI", raising=False)
    for params in (SFT, DPO):
        run(tmp_path / type(params).__name__, params, epochs=1)


def test_what_is_older_is_not_kept(whole: tuple) -> None:
    _params, folder, _steps = whole
    assert [path.name for path in folder.glob("work/*/checkpoint-*")] == [f"checkpoint-{STEPS}"]


# what is refused


def rows(folder: Path, *texts: str) -> dict[str, Any]:
    """Return settings to learn from questions that are answered with their own text, and never with "b"."""
    lines = b"".join(msgspec.json.encode({"q": text, "chosen": text, "rejected": "b"}) + b"\n" for text in texts)
    write_bytes(folder / "rows.jsonl", lines)
    return {"path": str(folder / "rows.jsonl"), "language": "en"}


@pytest.mark.parametrize(("params", "columns"), [(SFT, Fields(prompt=("q",), answer="chosen")), (DPO, Sides(prompt="q"))])
def test_what_is_too_long_or_spells_a_special_token_is_left_out_and_counted(
    tmp_path: Path, params: SftParams | DpoParams, columns: Any
) -> None:
    _model, tokenizer = chatty()
    taken = "a" * 10
    texts = [taken, "a " * 40, "<|im_end|>", "<|im_start|>system", "<eos>"]
    some = msgspec.structs.replace(params, rows=(Jsonl(**rows(tmp_path, *texts), columns=columns),))
    found = encoded(tokenizer, some)
    assert found.counts == [
        RowCounts(source=str(tmp_path / "rows.jsonl"), language="en", taken=1, dropped={"too long": 1, "special token": 3})
    ]
    assert sentence(found.counts) == f"{tmp_path / 'rows.jsonl'}: 1 in 1 languages, without 3 special token, 1 too long"
    assert len(found.rows) == 1
    with pytest.raises(ValueError, match=r"nothing to learn from: .*too long.*; raise max_length, or name other rows"):
        encoded(tokenizer, msgspec.structs.replace(some, max_length=5))


def test_a_conversation_of_just_the_length_is_taken() -> None:
    _model, tokenizer = chatty()
    for params, name in ((SFT, "input_ids"), (DPO, None)):
        lengths = []
        for row in encoded(tokenizer, params).rows:
            sides = (
                [row[name]]
                if name
                else [
                    tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"]
                    for side in ("chosen", "rejected")
                ]
            )
            lengths.append(max(map(len, sides)))
        longest = max(lengths)
        kept = [len(encoded(tokenizer, msgspec.structs.replace(params, max_length=most)).rows) for most in (longest, longest - 1)]
        assert kept == [len(lengths), len(lengths) - lengths.count(longest)]


def test_no_rows_are_too_few() -> None:
    _model, tokenizer = chatty()
    with pytest.raises(ValueError, match="nothing to learn from: no rows"):
        encode_conversations(tokenizer, SFT, Questions(answers={}, questions=()), seed=3)


def test_preferences_need_a_model_that_chats() -> None:
    with pytest.raises(ValueError, match=r"the tokenizer has no chat template; .* tune it with `sft` first"):
        encoded(tiny_tokenizer(), DPO)


@pytest.mark.parametrize("params", [SFT, DPO])
def test_what_does_not_fit_is_refused(tmp_path: Path, params: SftParams | DpoParams) -> None:
    model, tokenizer = chatty()
    examples, tune = encoded(tokenizer, params), sft if isinstance(params, SftParams) else dpo
    options: Any = {"seed": 3, "work": tmp_path, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="the tokenizer has 502 tokens and the model 500; take those of one folder"):
        tune(tiny(), tokenizer, examples, params, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_length is 64 and the model has 32 positions; lower it"):
        tune(chatty(max_position_embeddings=32)[0], tokenizer, examples, params, **options)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="step 1: the loss is nan, its gradient's norm nan; lower peak_lr"):
        tune(model, tokenizer, examples, params, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        (SFT, {"micro_batch": 3}, "batch is 4; it must be a multiple of micro_batch, 3"),
        (SFT, {"epochs": 0}, r">= 1 - at `\$\.epochs`"),
        (SFT, {"warmup": 1.1}, r"<= 1.0 - at `\$\.warmup`"),
        (SFT, {"peak_lr": 0.0}, r"> 0.0 - at `\$\.peak_lr`"),
        (SFT, {"neftune_noise_alpha": -1.0}, r">= 0.0 - at `\$\.neftune_noise_alpha`"),
        (SFT, {"rows": [{"kind": "questions", "other_language": 0.5}]}, r"unknown field `other_language` - at `\$\.rows\[0\]"),
        (
            SFT,
            {"rows": [{"kind": "jsonl", "path": "a", "columns": {"layout": "sides"}}]},
            r"Invalid value 'sides' - at `\$\.rows\[0\]\.columns",
        ),
        (DPO, {"beta": 0.0}, r"> 0.0 - at `\$\.beta`"),
        (DPO, {"rows": [{"kind": "questions", "other_language": 1.5}]}, r"<= 1.0 - at `\$\.rows\[0\]\.other_language`"),
        (
            DPO,
            {"rows": [{"kind": "jsonl", "path": "a", "columns": {"layout": "turns"}}]},
            r"Invalid value 'turns' - at `\$\.rows\[0\]\.columns",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: SftParams | DpoParams, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.to_builtins(kind) | setting, type(kind))


def test_steps_are_counted_before_they_are_taken(whole: tuple) -> None:
    params, _folder, steps = whole
    _model, tokenizer = chatty()
    assert num_steps(encoded(tokenizer, params), params) == len(steps) == STEPS
