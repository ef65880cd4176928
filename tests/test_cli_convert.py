"""esdnet convert and esdnet weights."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDEN, INTEGER, TINY, Run, tiny_network, write
from safetensors.torch import save_file

from esdnet_cli.checkpoint.bundled import bundled
from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet

NESTED = {
    "raw": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "params": lambda state: {"params": state},
    "module": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "module in state_dict": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    "double precision": lambda state: {k: v.double() if v.is_floating_point() else v for k, v in state.items()},
}


@pytest.mark.parametrize("container", NESTED)
def test_published_forms_are_converted(container: str, tmp_path: Path, run: Run) -> None:
    state = load_network(open_checkpoint(str(GOLDEN / "compact-weights.safetensors"))).state_dict()
    source, target = tmp_path / "published.pth", tmp_path / "new" / "converted.safetensors"
    torch.save(NESTED[container](state), source)
    result = run("convert", source, target)
    assert result.exit_code == 0, result.stderr
    assert "250 tensors" in result.stdout
    converted = open_checkpoint(str(target))
    assert converted.config == ESDNetConfig(16, (2, 2, 2), (1, 1, 1))
    loaded = load_network(converted).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("config", [TINY, ESDNetConfig(32, (1, 2, 1), (2, 1, 1), 3)], ids=str)
def test_any_width_and_depth(config: ESDNetConfig, tmp_path: Path, run: Run) -> None:
    torch.save(ESDNet(config).state_dict(), tmp_path / "a.pth")
    assert run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors").exit_code == 0
    assert open_checkpoint(str(tmp_path / "a.safetensors")).config == config


def test_everything_that_does_not_fit_is_listed_and_nothing_written(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    state["head.weight"] = state.pop("output.0.weight")
    state["output.0.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "odd.pth")
    result = run("convert", tmp_path / "odd.pth", tmp_path / "odd.safetensors")
    assert result.exit_code == 2
    for phrase in ("odd.pth", "missing output.0.weight", "extra head.weight", "output.0.bias is [5], should be [3]"):
        assert phrase in result.stderr
    assert not (tmp_path / "odd.safetensors").exists()


BAD = {
    "no file": (None, "no such file"),
    "text": (b"not a checkpoint", "contains more than tensors, or is not a PyTorch file"),
    "empty": (b"", "not a whole PyTorch checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_get_one_line(case: str, tmp_path: Path, run: Run) -> None:
    content, message = BAD[case]
    source = tmp_path / "bad.pth"
    if content is not None:
        source.write_bytes(content)
    result = run("convert", source, tmp_path / "bad.safetensors")
    assert result.exit_code == 2
    assert str(source) in result.stderr and message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [{"a": 1}, [torch.zeros(1)], {}, {"state_dict": {"x": "text"}}], ids=str)
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path, run: Run) -> None:
    torch.save(content, tmp_path / "odd.pth")
    result = run("convert", tmp_path / "odd.pth", tmp_path / "odd.safetensors")
    assert result.exit_code == 2 and "model.state_dict()" in result.stderr


def test_a_file_that_holds_itself_is_refused(tmp_path: Path, run: Run) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "round.pth")
    result = run("convert", tmp_path / "round.pth", tmp_path / "round.safetensors")
    assert result.exit_code == 2 and "round.pth: " in result.stderr


ODD_TENSORS = {
    "whole numbers": (lambda tensor: tensor.long(), "is torch.int64, not floating-point numbers"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "quantised, sparse, complex"),
    "sparse": (lambda tensor: tensor.to_sparse(), "quantised, sparse, complex"),
    "quantised": (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantised, sparse, complex"),
    "expanded": (lambda tensor: tensor[:1, :1, :1, :1].clone().expand_as(tensor), "claims more values than"),
    "nan": (lambda tensor: tensor * float("nan"), "holds NaN or infinity"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", ODD_TENSORS)
def test_odd_tensors_are_refused_by_name(case: str, tmp_path: Path, run: Run) -> None:
    change, message = ODD_TENSORS[case]
    state = tiny_network().state_dict()
    name = "encoder_level1.0.residual.1.weight"
    torch.save({**state, name: change(state[name])}, tmp_path / "odd.pth")
    result = run("convert", tmp_path / "odd.pth", tmp_path / "odd.safetensors")
    assert result.exit_code == 2
    assert name in result.stderr and message in result.stderr and result.stderr.count("\n") == 1


def test_averaged_counters_are_whole_numbers_again(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    averaged = {name: tensor.float() for name, tensor in state.items()}
    torch.save({"params_ema": averaged}, tmp_path / "a.pth")
    assert run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors").exit_code == 0
    loaded = load_network(open_checkpoint(str(tmp_path / "a.safetensors"))).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state if name.endswith("num_batches_tracked"))


def test_the_same_source_gives_the_same_file_whatever_its_layout(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    last = {name: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for name, t in state.items()}
    written = []
    for source in (state, state, {"model_state_dict": last}):
        torch.save(source, tmp_path / "a.pth")
        done = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors", "--overwrite")
        assert done.exit_code == 0, done.output
        written.append((tmp_path / "a.safetensors").read_bytes())
    assert written[0] == written[1] == written[2]
    assert open_checkpoint(str(tmp_path / "a.safetensors")).config == TINY


def test_one_name_twice_is_refused(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    torch.save({**state, "module.output.0.bias": torch.ones(3)}, tmp_path / "twice.pth")
    result = run("convert", tmp_path / "twice.pth", tmp_path / "twice.safetensors")
    assert result.exit_code == 2 and "holds output.0.bias twice" in result.stderr


def test_tensors_that_share_memory_are_converted(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    torch.save({**state, **dict.fromkeys(counters, torch.tensor(5))}, tmp_path / "shared.pth")
    assert run("convert", tmp_path / "shared.pth", tmp_path / "shared.safetensors").exit_code == 0
    load_network(open_checkpoint(str(tmp_path / "shared.safetensors")))


def test_truncated_archive_is_refused(tmp_path: Path, run: Run) -> None:
    torch.save(tiny_network().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    result = run("convert", tmp_path / "half.pth", tmp_path / "half.safetensors")
    assert result.exit_code == 2 and "not a whole PyTorch checkpoint" in result.stderr


def test_target_is_not_replaced_unasked(tiny: Path, tmp_path: Path, run: Run) -> None:
    torch.save(tiny_network().state_dict(), tmp_path / "a.pth")
    before = tiny.read_bytes()
    assert run("convert", tmp_path / "a.pth", tiny).exit_code == 2
    assert tiny.read_bytes() == before
    assert run("convert", tmp_path / "a.pth", tiny, "--overwrite").exit_code == 0
    assert tiny.read_bytes() != before
    assert run("convert", tmp_path / "a.pth", tmp_path / "a.pt").exit_code == 2


def test_weights_lists_the_bundled_ones(run: Run) -> None:
    heading, *lines = run("weights").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(bundled())
    terms = {line[heading.index("terms") : heading.index("trained on")].strip() for line in lines}
    assert terms == {"non-commercial research only"}


def test_weights_describes_one(tiny: Path, run: Run) -> None:
    result = run("weights", tiny)
    assert result.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line.strip())
    checkpoint = open_checkpoint(str(tiny))
    assert facts["sha256"].strip() == checkpoint.sha256
    assert facts["tile"].strip() == "16"
    assert json.loads(facts["config"]) == checkpoint.config.to_dict(), "as train --size takes it"
    assert facts["parameters"].strip() == f"{sum(p.numel() for p in tiny_network().parameters()):,}"


PREFIXED = {
    "net_g": lambda state: {f"net_g.{name}": tensor for name, tensor in state.items()},
    "generator": lambda state: {"state_dict": {f"generator.{name}": tensor for name, tensor in state.items()}},
    "compiled": lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    "with a loss network": lambda state: {
        **{f"model.{name}": tensor for name, tensor in state.items()},
        "loss.vgg.weight": torch.zeros(3),
    },
}


@pytest.mark.parametrize("form", PREFIXED)
def test_prefixes_are_stripped(form: str, tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    torch.save(PREFIXED[form](state), tmp_path / "a.pth")
    result = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert result.exit_code == 0, result.stderr
    assert ("left out 1 others" in result.stderr) == (form == "with a loss network")
    loaded = load_network(open_checkpoint(str(tmp_path / "a.safetensors"))).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("inside", [False, True], ids=["containers", "prefixes"])
def test_averaged_weights_are_preferred_and_that_is_said(inside: bool, tmp_path: Path, run: Run) -> None:
    plain, averaged = tiny_network().state_dict(), tiny_network().state_dict()
    if inside:
        held = {f"model.{name}": tensor for name, tensor in plain.items()}
        held |= {f"ema.{name}": tensor for name, tensor in averaged.items()}
    else:
        held = {"params": plain, "params_ema": averaged}
    torch.save(held, tmp_path / "a.pth")
    result = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert result.exit_code == 0 and "took" in result.stderr and "left out" in result.stderr
    loaded = load_network(open_checkpoint(str(tmp_path / "a.safetensors"))).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in averaged.items())


def test_two_networks_of_equal_right_are_refused(tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    both = {f"{prefix}.{name}": tensor for prefix in ("net_g", "generator") for name, tensor in state.items()}
    torch.save(both, tmp_path / "a.pth")
    result = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert result.exit_code == 2 and "holds several networks" in result.stderr


STATED = [
    ["--shortcut", "spike", "--neuron", "integer", "--levels", "4"],
    ["--config", '{"shortcut": "spike", "neuron": "integer", "levels": 4}'],
]


@pytest.mark.parametrize("options", STATED, ids=["options", "JSON"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_what_tensors_do_not_show_can_be_stated(ending: str, options: list[str], tmp_path: Path, run: Run) -> None:
    state, source, target = tiny_network(INTEGER).state_dict(), tmp_path / f"bare{ending}", tmp_path / "a.safetensors"
    if ending == ".pth":
        torch.save(state, source)
    else:
        save_file(state, source)
    result = run("convert", source, target, *options)
    assert result.exit_code == 0 and not result.stderr
    assert open_checkpoint(str(target)).config == INTEGER
    result = run("convert", source, target, "--overwrite")
    assert result.exit_code == 0
    assert "assuming shortcut membrane, neuron lif" in result.stderr and "--shortcut spike" in result.stderr


def test_figures_of_another_network_are_not_kept(tmp_path: Path, run: Run) -> None:
    network, source, target = tiny_network(INTEGER), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    about = {"metrics": "{}", "version": "3", "license": "free"}
    save(source, network.state_dict(), INTEGER, about)
    for options, kept in ((["--levels", "4"], about), (["--levels", "2"], {"license": "free"})):
        assert run("convert", source, target, "--overwrite", *options).exit_code == 0
        metadata = open_checkpoint(str(target)).metadata
        assert {key: metadata[key] for key in about if key in metadata} == kept


@pytest.mark.parametrize("name", ["convert", "train"])
def test_json_that_is_too_deep_is_refused(name: str, tmp_path: Path, run: Run) -> None:
    deep = '{"dim":' * 100_000
    if name == "convert":
        result = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors", "--config", deep)
    else:
        result = run("train", "--clean", tmp_path, "-o", tmp_path / "run", "--steps", 1, "--size", deep)
    assert result.exit_code == 2 and "unexpected" not in result.stderr


def test_what_tensors_do_show_cannot_be_contradicted(tmp_path: Path, run: Run) -> None:
    torch.save(tiny_network().state_dict(), tmp_path / "a.pth")
    for options, phrase in (
        (["--config", '{"patch": 2}'], "the tensors'"),
        (["--config", '{"dim": "x"}'], "dim must be"),
        (["--config", "[1]"], "is not a JSON object"),
        (["--levels", "3"], "needs neuron integer"),
    ):
        result = run("convert", tmp_path / "a.pth", tmp_path / "a.safetensors", *options)
        assert result.exit_code == 2 and phrase in result.stderr, options
        assert not (tmp_path / "a.safetensors").exists()


def test_a_file_without_metadata_runs_and_says_what_is_assumed(tmp_path: Path, run: Run) -> None:
    tmp_path = tmp_path / "my own"
    tmp_path.mkdir()
    save_file(tiny_network().state_dict(), tmp_path / "bare.safetensors")
    picture = write(tmp_path / "in" / "a.png")
    for command in (
        ["weights", tmp_path / "bare.safetensors"],
        ["energy", picture, "--weights", tmp_path / "bare.safetensors"],
    ):
        result = run(*command)
        assert result.exit_code == 0
        assert result.stderr.count("assuming shortcut membrane, neuron lif") == 1
    _, printed = result.stderr.splitlines()[0].split("To set it: esdnet ")
    told = run(*shlex.split(printed.replace("NEW.safetensors", shlex.quote(str(tmp_path / "told.safetensors")))))
    assert told.exit_code == 0 and "'levels': 4" in told.stdout
    result = run("energy", picture, "--weights", tmp_path / "told.safetensors")
    assert result.exit_code == 0 and "assuming" not in result.stderr
