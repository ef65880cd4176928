"""Checkpoints: what is inferred, what is refused, and that refusing executes nothing."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Run, tiny_network
from safetensors.torch import save_file
from torch import Tensor

import esdnet_cli
from esdnet_cli.checkpoint.bundled import bundled
from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save
from esdnet_cli.errors import CheckpointError
from esdnet_cli.model.config import SIZES as NAMED
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.low_precision import int8_works
from esdnet_cli.model.network import ESDNet

State = dict[str, Tensor]
SIZES = [
    TINY,
    ESDNetConfig(dim=16, encoder_blocks=(2, 1, 3), decoder_blocks=(1, 2, 1), timesteps=2),
    ESDNetConfig(dim=24, encoder_blocks=(1, 0, 1), decoder_blocks=(0, 1, 2), timesteps=6),
    dataclasses.replace(TINY, patch=2),
]


@pytest.mark.parametrize("config", SIZES, ids=str)
def test_configuration_follows_from_names_and_shapes(config: ESDNetConfig, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(ESDNet(config).state_dict(), path)  # no metadata at all
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.config == config
    assert (checkpoint.tile, checkpoint.overlap) == (80, 8)
    load_network(checkpoint)


def test_saved_metadata_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "spike.safetensors"
    config = ESDNetConfig.from_dict({**TINY.to_dict(), "shortcut": "spike"})
    save(path, ESDNet(config).state_dict(), config, {"tile": "64", "overlap": "0", "license": "CC0"})
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.config == config
    assert (checkpoint.tile, checkpoint.overlap, checkpoint.metadata["license"]) == (64, 0, "CC0")
    assert checkpoint.metadata["format"] == "esdnet"
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


def test_a_kernel_beyond_16_bits_is_kept_in_32(tmp_path: Path) -> None:
    """Batch norm makes its size irrelevant, so that training may let it grow."""
    state = tiny_network().state_dict()
    name = "encoder_level1.0.residual.1.weight"
    state[name][0, 0, 0, 0] = 7e4
    save(tmp_path / "w.safetensors", as_shipped(state), TINY, {})
    kept = load_network(open_checkpoint(str(tmp_path / "w.safetensors"))).state_dict()
    assert torch.equal(kept[name], state[name])
    assert as_shipped(state)["encoder_level1.0.residual.4.weight"].dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_is_float32_in_memory(dtype: torch.dtype, tmp_path: Path) -> None:
    state = tiny_network().state_dict()
    half = {name: tensor.to(dtype) if tensor.dim() == 4 else tensor for name, tensor in state.items()}
    path = tmp_path / "half.safetensors"
    save(path, half, TINY, {})
    loaded = load_network(open_checkpoint(str(path))).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(tensor, half[name].to(tensor.dtype)) for name, tensor in loaded.items())


def _rename(state: State, old: str, new: str) -> None:
    for name in [name for name in state if name.startswith(old)]:
        state[name.replace(old, new)] = state.pop(name)


def _drop(state: State, part: str) -> None:
    for name in [name for name in state if part in name]:
        del state[name]


CONV, NORM = "encoder_level1.0.residual.1.weight", "encoder_level1.0.residual.2.running_var"
BROKEN: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda state: state.pop(CONV), f"missing {CONV}"),
    "extra": (lambda state: state.update(head=torch.zeros(1)), "extra head"),
    "misshapen": (lambda state: state.update({CONV: torch.zeros(8, 8, 1, 1)}), r"is \[8, 8, 1, 1\], should be"),
    "other network": (lambda state: (state.clear(), state.update(x=torch.zeros(1))), "patch_embed.proj.weight is miss"),
    "integers": (lambda state: state.update({CONV: torch.zeros(8, 8, 3, 3, dtype=torch.int8)}), f"{CONV} is I8"),
    "doubles": (lambda state: state.update({CONV: torch.zeros(8, 8, 3, 3).double()}), f"{CONV} is F64"),
    "nan": (lambda state: state[CONV].view(-1)[3].fill_(float("nan")), f"{CONV} holds NaN or infinity"),
    "infinity": (lambda state: state[NORM][0].fill_(float("inf")), f"{NORM} holds NaN or infinity"),
    "variance": (lambda state: state[NORM][0].fill_(-1), f"{NORM} holds a negative variance"),
    "no block": (lambda state: _drop(state, "coder_level"), "has no residual block"),
    "no attention": (lambda state: _drop(state, ".attn."), "missing encoder_level1.0.attn.ta.sharedMLP.0.weight"),
    "gap": (lambda state: _rename(state, "encoder_level1.0", "encoder_level1.999999999"), "missing encoder_level1.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tensors_are_refused_by_name(case: str, tmp_path: Path) -> None:
    breaks, message = BROKEN[case]
    state = {name: tensor.clone() for name, tensor in tiny_network().state_dict().items()}
    breaks(state)
    path = tmp_path / "broken.safetensors"
    save_file(state, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(open_checkpoint(str(path)))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


METADATA = {
    "another size": ({"config": json.dumps({**TINY.to_dict(), "dim": 16})}, "metadata config says"),
    "absurd size": ({"config": json.dumps({**TINY.to_dict(), "encoder_blocks": [10**9, 1, 1]})}, "metadata config"),
    "no JSON": ({"config": "{dim"}, "metadata config"),
    "no object": ({"config": "[8]"}, "is not a JSON object"),
    "wrong type": ({"config": '{"dim": "8"}'}, "dim must be a whole number"),
    "unknown field": ({"config": '{"width": 8}'}, "unknown fields: width"),
    "shortcut": ({"config": '{"shortcut": "none"}'}, "shortcut must be one of"),
    "nested": ({"config": "[" * 100_000}, "metadata config"),
    "tile": ({"tile": "-80"}, "metadata tile is '-80'"),
    "overlap": ({"tile": "8", "overlap": "8"}, "overlap 8 is not smaller than tile 8"),
    "tile shape": ({"tile_shape": "round"}, "metadata tile_shape is 'round', not square or fitted"),
}  # fmt: skip


@pytest.mark.parametrize("case", METADATA)
def test_lying_metadata_is_refused(case: str, tmp_path: Path) -> None:
    metadata, message = METADATA[case]
    path = tmp_path / "lying.safetensors"
    save_file(tiny_network().state_dict(), path, metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def _truncated(data: bytes) -> bytes:
    return data[:-100]


def _endless_header(data: bytes) -> bytes:
    return struct.pack("<Q", 2**63) + data[8:]


FILES = {
    "empty": lambda data: b"",
    "eight bytes": lambda data: data[:8],
    "truncated": _truncated,
    "header length lies": _endless_header,
    "text": lambda data: b"hello " * 100,
    "header is no JSON": lambda data: data[:9] + b"\xff" * 50 + data[59:],
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_whole_are_refused(case: str, tiny: Path, run: Run) -> None:
    tiny.write_bytes(FILES[case](tiny.read_bytes()))
    result = run("weights", tiny)
    assert result.exit_code == 2
    assert str(tiny) in result.stderr and "not a whole safetensors file" in result.stderr
    assert result.stderr.count("\n") == 1


class _Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("dump", [lambda o, p: torch.save(o, p), lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_pickles_are_never_executed(name: str, dump: Callable[..., object], tmp_path: Path, run: Run) -> None:
    path, struck = tmp_path / name, tmp_path / "struck"
    dump({"state_dict": _Bomb(struck)}, path)
    loaded = run("weights", path)
    assert loaded.exit_code == 2 and "is a pickle" in loaded.stderr and "esdnet convert" in loaded.stderr
    converted = run("convert", path, tmp_path / "out.safetensors")
    assert converted.exit_code == 2 and "contains more than tensors" in converted.stderr
    assert not struck.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    path, state = tmp_path / "a.safetensors", tiny_network().state_dict()
    for padding in range(0, 2048, 8):
        save(path, state, TINY, {"note": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert open_checkpoint(str(path)).config == TINY
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        open_checkpoint(str(path))


def test_bundled_names_and_unknown_ones() -> None:
    assert "small" in bundled()
    assert open_checkpoint("small").sha256 == open_checkpoint("esdnet-small").sha256
    for name in bundled():
        assert open_checkpoint(name).config == NAMED[name], "one name, one size"
    with pytest.raises(CheckpointError, match=r"huge: no such checkpoint; give a file or one of: .*small"):
        open_checkpoint("huge")


def test_every_bundled_checkpoint_loads_and_has_a_card() -> None:
    for name, path in bundled().items():
        checkpoint = open_checkpoint(name)
        load_network(checkpoint)
        assert {"format", "config", "tile", "overlap", "license", "trained_on", "metrics", "version"} <= set(
            checkpoint.metadata
        )
        card = (path.parent / "README.md").read_text()
        assert path.name in card and checkpoint.sha256[:12] in card


@pytest.mark.parametrize(
    "metrics, native, chosen",
    [
        ({"validation": {"bf16_psnr_y_change": -0.02}}, ("bf16", "int8"), "bf16"),
        ({"validation": {"bf16_psnr_y_change": -0.02, "int8_psnr_y_change": 0.01}}, ("bf16", "int8"), "int8"),
        ({"validation": {"bf16_psnr_y_change": -0.02, "int8_psnr_y_change": 0.01}}, ("bf16",), "bf16"),
        ({"validation": {"bf16_psnr_y_change": -0.02, "int8_psnr_y_change": -0.2}}, ("bf16", "int8"), "bf16"),
        ({"validation": {"bf16_psnr_y_change": -0.02}}, (), "fp32"),
        ({"validation": {"bf16_psnr_y_change": -0.08}}, ("bf16", "int8"), "fp32"),
        ({"validation": {"bf16_psnr_y_change": "good"}}, ("bf16", "int8"), "fp32"),
        ({"validation": 7}, ("bf16", "int8"), "fp32"),
        (None, ("bf16", "int8"), "fp32"),
    ],
    ids=str,
)
@pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")
def test_auto_precision_follows_what_was_measured(
    metrics: object, native: tuple[str, ...], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esdnet_cli.model.inference.is_fast", lambda precision, *_: precision in native)
    path = tmp_path / "a.safetensors"
    save(path, tiny_network().state_dict(), TINY, {} if metrics is None else {"metrics": json.dumps(metrics)})
    assert esdnet_cli.load(path, device="cpu").precision == chosen
    assert esdnet_cli.load(path, device="cpu", precision="fp32").precision == "fp32"
