"""Costs worked out beforehand are those of the model itself; the sizes that we ship fit params.yaml and the devices they are meant for."""

import itertools
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from tests.conftest import ROOT
from tests.test_pretrain import FSDP
from xledit import cli
from xledit.models.fuxitranyu import FuxiTranyuConfig
from xledit.params import section
from xledit.runs import named, sizes
from xledit.runs.settings import read_params, read_yaml, set_params
from xledit.training.catalog import NATURAL, PROGRAMMING
from xledit.training.corpus import CorpusParams
from xledit.training.costs import Architecture, Device, costs
from xledit.training.mixture import Mixture
from xledit.training.pretrain import PretrainParams, operations_per_token, rows_per_step

SIZES = ["8b", "small"]
SMALL = Architecture(vocabulary=700, hidden_size=32, intermediate_size=48, num_hidden_layers=3, context=64)
DEVICE = Device(name="x", peak_flops=1e12, share_of_peak=0.5, memory=1e9, number=4)
PAPER = Architecture(vocabulary=250_680, hidden_size=4096, intermediate_size=16_384, num_hidden_layers=30, context=4096)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / named.RUNS, tmp_path / named.RUNS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("architecture", [SMALL, PAPER])
def test_parameters_and_operations_are_the_models_own(architecture: Architecture) -> None:
    a = architecture
    config = FuxiTranyuConfig(
        vocab_size=a.vocabulary,
        hidden_size=a.hidden_size,
        intermediate_size=a.intermediate_size,
        num_hidden_layers=a.num_hidden_layers,
        num_attention_heads=4,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert a.num_parameters == model.num_parameters()
    assert a.flops_per_token == operations_per_token(model, a.context)


def test_the_paper_s_run_is_of_the_size_that_it_says() -> None:
    assert PAPER.num_parameters == 8_094_724_096
    found = costs(PAPER, DEVICE, 606 * 10**9, 1)
    assert found.total_flops == pytest.approx(6 * 8.095e9 * 606e9, rel=0.02)


def test_costs_follow_the_formulas() -> None:
    found = costs(SMALL, DEVICE, 10**6, 2)
    assert found.tokens_per_second == 4 * 1e12 * 0.5 / SMALL.flops_per_token
    assert found.days * 86_400 * found.tokens_per_second == pytest.approx(10**6)
    assert found.state_bytes == 16 * SMALL.num_parameters / 4 + 2 * 700 * 32
    assert found.activation_bytes == 2 * 2 * 64 * (32 * 4 + 14 * 32 + 2 * 48)
    assert found.logit_bytes == 12 * 2 * 64 * 700


def test_logits_take_what_is_said_while_the_loss_is_backward() -> None:
    rows, vocabulary = 256, 5000
    states, head = torch.randn(rows, 2), torch.randn(2, vocabulary, requires_grad=True)

    def loss() -> torch.Tensor:  # as in compute_loss, whose logits are gone when it returns
        return cross_entropy((states @ head).float(), torch.zeros(rows, dtype=torch.long), reduction="none").sum()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        loss().backward()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events: list[Any] = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    one = Architecture(vocabulary=vocabulary, hidden_size=1, intermediate_size=1, num_hidden_layers=1, context=rows)
    assert costs(one, DEVICE, 1, 1).logit_bytes == pytest.approx(max(held), rel=0.02)


def test_several_gpus_share_a_run_as_the_two_processes_of_the_tests_do() -> None:
    arguments = launch_command_parser().parse_args(["--config_file", str(ROOT / named.RUNS / "tranyu-launch" / "fsdp2.yaml"), "x.py"])
    environment = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    assert {name: environment.get(name) for name in FSDP} == FSDP


def test_the_shares_of_the_8b_size_are_the_papers() -> None:
    ratios = read_yaml(ROOT / named.RUNS / "8b.yaml")["params"]["tranyu.mixture"]["ratios"]
    with_share = sum(row.share for row in NATURAL.values() if row.share)
    gigabytes = sum(row.gigabytes for row in PROGRAMMING.values())
    code = sum(ratios[name] for name in PROGRAMMING)
    assert ratios.keys() == NATURAL.keys() | PROGRAMMING.keys()
    for name, row in PROGRAMMING.items():
        assert ratios[name] == pytest.approx(code * row.gigabytes / gigabytes, abs=1e-4)
    for name, row in NATURAL.items():
        if row.share:
            assert ratios[name] / sum(ratios[each] for each, other in NATURAL.items() if other.share) == pytest.approx(
                row.share / with_share, abs=1e-3
            )
    assert len({ratios[name] for name, row in NATURAL.items() if not row.share}) == 1


@pytest.mark.parametrize("name", SIZES)
def test_a_size_fits_the_settings_and_its_devices(name: str, project: Path) -> None:
    from stages.training.corpus import Sources
    from stages.training.pretrain import RunParams
    from xledit.training.architecture import ArchitectureParams

    size = named.read(name)
    set_params(project, size.params)
    run, params = section("tranyu.run", RunParams), section("tranyu.pretrain", PretrainParams)
    architecture = section("tranyu.architecture", ArchitectureParams)
    section("tranyu.corpus", CorpusParams)
    mixture: Mixture = section("tranyu.mixture", Mixture)  # pyright: ignore[reportArgumentType]
    sources = section("tranyu.sources", Sources)
    assert [row.language for row in sources.rows] == list(run.languages)
    assert {row.limit for row in sources.rows} == {size.limit}
    assert len(run.languages) == 43 + 16
    assert sum(mixture.tokens_per_language(dict.fromkeys(run.languages, run.tokens), run.tokens).values()) == run.tokens
    assert len(rows_per_step(run.tokens // architecture.context, architecture.context, params)) > params.checkpoints
    device = size.device
    assert device is not None
    assert run.peak_flops == device.peak_flops
    assert params.batch_tokens % (architecture.context * params.micro_batch * device.number) == 0
    found = sizes.costs_of(device, read_params())
    assert found.state_bytes + found.activation_bytes + found.logit_bytes < 0.8 * device.memory


def test_the_8b_size_is_the_papers(project: Path) -> None:
    set_params(project, named.read("8b").params)
    assert sizes.architecture_of(read_params()) == PAPER


def test_every_size_says_what_it_is_meant_for_and_is_of_the_second_half(project: Path) -> None:
    found = {name: run for name in named.names() for run in [named.read(name)] if run.device}
    assert list(found) == SIZES
    assert {run.pipeline for run in found.values()} == {"tranyu/dvc.yaml"}


def test_using_a_size_prints_what_it_costs(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["xledit", "use", "8b"])
    cli.main()
    printed = capsys.readouterr().out
    assert "parameters                      8,094,724,096" in printed
    assert "tranyu.sources: changed" in printed


@pytest.mark.parametrize("file", ["none.yaml", "../8b.yaml"])
def test_sources_are_a_file_of_theirs(file: str, project: Path) -> None:
    path = project / named.RUNS / "small.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("rows: hub.yaml", f"rows: {file}"), encoding="utf-8")
    known = r"known: dpo\.yaml, hub\.yaml, sft\.yaml"
    with pytest.raises(ValueError, match=rf"runs/small\.yaml: tranyu\.sources\.rows: .*: no such file in .*; {known}"):
        named.read("small")
