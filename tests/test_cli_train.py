"""esdnet train, as it is called: one process, a killed one, several under torchrun."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result
from conftest import INTEGER, LEAST, TINY, Run, load_json, photo, tiny_network, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save

SIZE = json.dumps(LEAST.to_dict())
FEW = ("--size", SIZE, "--crop", 16, "--batch", 2, "--precision", "fp32")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for index in range(3):
        write(tmp_path / "clean" / f"{index}.png", photo(40, 48, index))
    return tmp_path / "clean"


def esdnet(*args: object) -> list[str]:
    return [sys.executable, "-m", "esdnet_cli", *(str(arg) for arg in args)]


def test_synth_train_and_use(clean: Path, tmp_path: Path, run: Run) -> None:
    """The whole way: pairs of our own rain, a run on them, its weights on a picture."""
    assert run("synth", clean, "-o", tmp_path / "pairs").exit_code == 0
    done = run("train", "--pairs", tmp_path / "pairs", "--validate", tmp_path / "pairs", "-o", tmp_path / "run",
               "--steps", 4, *FEW)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "validation PSNR" in done.stdout and "4 steps in" in done.stdout
    weights = tmp_path / "run" / "best.safetensors"
    assert run("weights", weights).exit_code == 0
    mistaken = run("weights", tmp_path / "run" / "state.safetensors")
    assert mistaken.exit_code == 2 and "is the state of a training run; use best.safetensors or" in mistaken.stderr
    shown = run("images", clean / "0.png", "-o", tmp_path / "out", "--weights", weights)
    assert shown.exit_code == 0 and (tmp_path / "out" / "0.png").is_file()


def test_a_reader_who_has_gone_ends_no_run(clean: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    for side in ("input", "target"):
        write(pairs / side / "a.png")
    command = ("train", "--clean", clean, "--validate", pairs, "-o", tmp_path / "run", "--steps", 3, *FEW)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(esdnet(*command), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 3


def test_a_folder_whose_name_is_no_utf8(clean: Path, tmp_path: Path, run: Run) -> None:
    odd = clean.rename(tmp_path / os.fsdecode(b"c\xff"))
    done = run("train", "--clean", odd, "-o", tmp_path / "run", "--steps", 1, *FEW)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_what_is_assumed_of_a_checkpoint_is_said(clean: Path, tmp_path: Path, run: Run, tiny: Path) -> None:
    save_file(load_file(tiny), tmp_path / "bare.safetensors")
    train = ("train", "--clean", clean, "--init", tmp_path / "bare.safetensors", "--steps", 1, "--crop", 16)
    assert "bare.safetensors" in (done := run(*train, "-o", tmp_path / "a", "--batch", 1)).stderr, done.output
    assert "assum" in done.stderr
    stated = run(*train, "-o", tmp_path / "b", "--batch", 1, "--size", json.dumps(TINY.to_dict()))
    assert stated.exit_code == 0 and "assum" not in stated.stderr


def test_init_begins_with_a_checkpoint(clean: Path, tmp_path: Path, run: Run, tiny: Path) -> None:
    done = run("train", "--clean", clean, "-o", tmp_path / "run", "--init", tiny, "--steps", 1, "--lr", 1e-12,
               "--crop", 16, "--batch", 1, "--precision", "fp32")  # fmt: skip
    assert done.exit_code == 0, done.output
    before, after = load_file(tiny), load_file(tmp_path / "run" / "last.safetensors")
    name = "encoder_level1.0.residual.1.weight"
    torch.testing.assert_close(after[name].float(), before[name], atol=1e-3, rtol=0)


def test_weights_that_began_with_others_say_their_terms(clean: Path, tmp_path: Path, run: Run, tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    about = {"license": "not for sale", "trained_on": "others' pictures"}
    save(tmp_path / "a.safetensors", load_network(checkpoint).state_dict(), checkpoint.config, about)
    done = run("train", "--clean", clean, "-o", tmp_path / "run", "--init", tmp_path / "a.safetensors", "--steps", 1,
               "--crop", 16, "--batch", 1)  # fmt: skip
    assert done.exit_code == 0, done.output
    metadata = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata
    assert metadata["license"] == "not for sale" and metadata["trained_on"] == f"others' pictures; then {clean}"


def test_folders_in_an_environment_variable_are_separated_as_in_path(
    clean: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("some pairs", "more"):
        for side in ("input", "target"):
            write(tmp_path / name / side / "p.png", photo(40, 48))
    monkeypatch.setenv("ESDNET_CLEAN", os.pathsep.join([str(clean), str(clean)]))
    monkeypatch.setenv("ESDNET_PAIRS", f"{tmp_path / 'some pairs'}=0.2{os.pathsep}{tmp_path / 'more'}")
    done = run("train", "-o", tmp_path / "run", "--steps", 1, *FEW)
    assert done.exit_code == 0, done.output
    trained_on = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata["trained_on"]
    assert trained_on == ", ".join(str(tmp_path / name) for name in ("clean", "clean", "some pairs", "more"))


def test_photographs_masks_and_pairs_together(clean: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "streaks" / "s.png", photo(40, 48)[..., 0])
    write(tmp_path / "more=0" / "s.png", photo(40, 48)[..., 0])
    for side in ("input", "target"):
        write(tmp_path / "pairs" / side / "p.png", photo(40, 48))
    done = run("train", "--clean", clean, "--streaks", f"{tmp_path / 'streaks'}=0.3", "--streaks", tmp_path / "more=0",
               "--pairs", f"{tmp_path / 'pairs'}=0.2", "-o", tmp_path / "run", "--steps", 3, *FEW)  # fmt: skip
    assert done.exit_code == 0, done.output
    trained_on = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata["trained_on"]
    assert trained_on == ", ".join(str(tmp_path / name) for name in ("clean", "streaks", "more=0", "pairs"))


def test_an_integer_network_on_patches_trains_and_is_used(clean: Path, tmp_path: Path, run: Run) -> None:
    train = ("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 2, "--batch", 2, "--precision", "fp32",
             "--size", json.dumps(INTEGER.to_dict()))  # fmt: skip
    refused = run(*train, "--crop", 20)
    assert refused.exit_code == 2 and "--crop 20 is not a multiple of 8" in refused.stderr
    assert run(*train, "--crop", 16).exit_code == 0
    weights = tmp_path / "run" / "last.safetensors"
    assert open_checkpoint(str(weights)).config == INTEGER
    report = tmp_path / "report.json"
    measured = run("energy", clean, "--weights", weights, "--report", report, "--spike-map", tmp_path / "maps")
    assert measured.exit_code == 0, measured.output
    assert load_json(report)["weights"]["config"]["levels"] == INTEGER.levels
    merged = run("energy", "--merge", report, "--report", tmp_path / "again.json")
    assert merged.exit_code == 0, merged.output
    rates = [[image["spike_rate"] for image in load_json(path)["images"]] for path in (report, tmp_path / "again.json")]
    assert rates[0] == rates[1] and all(0 < rate < 1 for rate in rates[0])


def test_a_network_learns_from_another(clean: Path, tmp_path: Path, tiny: Path, run: Run) -> None:
    train = ("train", "--clean", clean, "-o", tmp_path / "run", *FEW)
    assert run(*train, "--steps", 1, "--teacher", f"{tiny}=8").exit_code == 0
    metadata = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata
    assert metadata["trained_on"] == f"{clean}; taught by {tiny}" and "license" not in metadata
    refused = run(*train, "--steps", 1, "--teacher", f"{tiny}=4", "--resume")
    assert refused.exit_code == 2 and "was started with teacher" in refused.stderr
    assert run(*train, "--steps", 1, "--teacher", f"{tiny}=8", "--resume").exit_code == 0


def test_licences_of_beginning_and_teacher_are_both_kept(clean: Path, tmp_path: Path, run: Run) -> None:
    made = {}
    for name, origin in (
        ("begun", {"license": "CC0", "trained_on": "a"}),
        ("wise", {"license": "NC", "trained_on": "b"}),
    ):
        made[name] = tmp_path / f"{name}.safetensors"
        save(made[name], tiny_network(LEAST).state_dict(), LEAST, origin)
    train = ("train", "--clean", clean, *FEW[2:], "--steps", 1, "--teacher", made["wise"])
    assert run(*train, "-o", tmp_path / "run", "--init", made["begun"]).exit_code == 0
    metadata = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata
    assert metadata["license"] == "CC0; NC"
    assert metadata["trained_on"] == f"a; then {clean}; taught by {made['wise']} (b)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give --clean, --pairs, or both."),
        (("--clean", "x", "--streaks", "y=2", "--steps", 1), "y=2: the share of the crops must be"),
        (("--clean", "x", "--streaks", "y=0.7", "--pairs", "z=0.7", "--steps", 1), "the shares add up to 1.4"),
        (("--pairs", "x", "--streaks", "y"), "--streaks needs --clean."),
        (("--clean", "x"), "Give either --steps or --minutes."),
        (("--clean", "x", "--steps", 1, "--freeze-norm"), "--freeze-norm needs --init"),
        (("--clean", "x", "--steps", 1, "--spike-budget", 0.9), "--spike-budget needs --init"),
        (("--clean", "x", "--steps", 1, "--teacher", "small=3"), "small=3: the copies must be one of 1, 2, 4, 8"),
        (("--clean", "x", "--steps", 1, "--teacher", "nowhere=2"), "nowhere: no such checkpoint"),
        (("--clean", "x", "--steps", 1, "--size", "lif", "--crop", 20, "--teacher", "small"), "multiple of 8, not 20"),
        (("--clean", "x", "--minutes", "nan"), "'--minutes': nan is not a number to go by"),
        (("--clean", "x", "--steps", 1, "--lr", "inf"), "'--lr': inf is not a number to go by"),
        (("--clean", "x", "--steps", 1, "--cooldown", "nan"), "'--cooldown': nan is not a number to go by"),
        (("--clean", "x", "--steps", 1, "--seed", 2**70), "is not in the range 0<=x<=4294967295"),
        (("--clean", "x", "--steps", 1, "--minutes", 1), "Give either --steps or --minutes."),
        (("--clean", "x", "--steps", 1, "--crop", 18), "--crop 18 is not a multiple of 8"),
        (("--clean", "x", "--steps", 1), "x: is not a folder"),
        (("--clean", "x", "--steps", 1, "--size", "huge"), "--size huge:"),
        (("--clean", "x", "--steps", 1, "--size", '{"dim": 0}'), "dim must be a whole number"),
        (("--clean", "x", "--steps", 1, "--size", '{"timesteps": 1000000}'), "timesteps must be a whole number"),
        (
            ("--clean", "x", "--steps", 1, "--size", '{"encoder_blocks": [0, 0, 0], "decoder_blocks": [0, 0, 0]}'),
            "must not all be 0",
        ),
        (("--clean", "x", "--steps", 1, "--init", "nowhere"), "nowhere: no such checkpoint"),
        (("--clean", "x", "--steps", 1, "--device", "cuda:99"), "--device cuda:99"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_said_at_once(
    options: tuple[object, ...], message: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run("train", "-o", tmp_path / "run", *options)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_a_network_that_memory_does_not_hold_says_so(
    clean: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10000000000 bytes.")

    monkeypatch.setattr("esdnet_cli.training.loop.ESDNet", no_room)
    refused = run("train", "--clean", clean, "-o", tmp_path / "run", *FEW, "--steps", 1)
    assert refused.exit_code == 2 and "no room for the network's weights; use a smaller --size" in refused.stderr


def test_a_photograph_that_is_not_there_reads_as_in_every_command(clean: Path, tmp_path: Path, run: Run) -> None:
    (clean / "gone.png").symlink_to("nowhere.png")
    refused = run("train", "--clean", clean, "-o", tmp_path / "run", *FEW, "--steps", 1)
    assert refused.exit_code == 2
    assert f"{clean / 'gone.png'}: No such file or directory; check that it exists, " in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(clean: Path, tmp_path: Path, run: Run) -> None:
    train = ("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 1, *FEW)
    assert run(*train).exit_code == 0
    again = run(*train)
    assert again.exit_code == 2
    assert "already contains a run; add --resume" in again.stderr
    (tmp_path / "run" / "state.safetensors").unlink()  # which takes room, and nobody needs but to go on
    weights = tmp_path / "run" / "last.safetensors"
    trained = weights.read_bytes()
    again = run(*train, "--seed", 1)
    assert again.exit_code == 2 and weights.read_bytes() == trained
    assert f"{weights}: would be replaced; move it, or choose another folder" in again.stderr
    weights.unlink()  # what is left is as of a run that ended before its first state
    assert run(*train, "--seed", 1).exit_code == 0


def test_a_log_of_others_is_not_removed(clean: Path, tmp_path: Path, run: Run) -> None:
    others = tmp_path / "run" / "log.jsonl"
    others.parent.mkdir()
    for text in ('{"event": "start"}\n', "5\n", "notes", ""):
        others.write_text(text)
        refused = run("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 1, *FEW)
        assert refused.exit_code == 2 and f"{others}: is no log of a run; move it, or choose" in refused.stderr
        assert others.read_text() == text


KILLED = """
import os, signal, sys
from esdnet_cli.cli import cli
from esdnet_cli.training.loop import TrainingRun

train_step, steps = TrainingRun._train_step, iter(range(5))

def step_or_die(run):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(run)

TrainingRun._train_step = step_or_die
cli(sys.argv[1:])
"""


def test_killed_and_resumed_ends_with_the_same_weights(clean: Path, tmp_path: Path, run: Run) -> None:
    def train(folder: str) -> tuple[object, ...]:
        return ("train", "--clean", clean, "--validate", pairs, "-o", tmp_path / folder, "--steps", 20, *FEW, "-q")

    pairs = tmp_path / "pairs"
    for side in ("input", "target"):
        write(pairs / side / "p.png", photo(24, 32, len(side)))
    assert run(*train("whole")).exit_code == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, train("killed"))])
    assert killed.returncode == -signal.SIGKILL, "five steps are done, the state is of the fourth"
    resumed = run(*train("killed"), "--resume")
    assert resumed.exit_code == 0, resumed.output
    ends = [load_file(tmp_path / folder / "last.safetensors") for folder in ("whole", "killed")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    logs = [(tmp_path / folder / "log.jsonl").read_text().splitlines() for folder in ("whole", "killed")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps[0] == steps[1] == [1, *range(2, 21, 2)]


def test_resumed_it_computes_as_begun(clean: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # what is faster a stopwatch decides, which on a busy machine says another thing tomorrow
    train = ("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 1, *FEW[:-2], "--device", "cpu")
    for bf16_is_fast, resume in ((True, ()), (False, ("--resume",))):
        monkeypatch.setattr("esdnet_cli.model.inference.is_fast", lambda *_, fast=bf16_is_fast: fast)
        result = run(*train, *resume)
        assert result.exit_code == 0, result.output
        assert "bf16 on cpu" in result.stderr


def test_resumed_on_other_data_is_refused(clean: Path, tmp_path: Path, run: Run) -> None:
    def train(photographs: Path, *options: object) -> Result:
        return run("train", "--clean", photographs, "-o", tmp_path / "run", "--steps", 2, *FEW, *options)

    pairs, others = tmp_path / "pairs", tmp_path / "others"
    for folder in (pairs, others):
        for side in ("input", "target"):
            write(folder / side / "p.png", photo(24, 32, len(folder.name + side)))
    assert train(clean, "--pairs", f"{pairs}=0.3", "--validate", pairs).exit_code == 0
    moved = clean.rename(tmp_path / "moved")
    same = ("--pairs", f"{pairs}=0.3", "--validate", pairs, "--resume")
    assert train(moved, *same).exit_code == 0, "the same pictures, wherever they lie"
    for options, words in (
        (("--pairs", f"{pairs}=0.4", *same[2:]), ("was started with data 3 photographs ", "=0.3, not 3 ", "=0.4; ")),
        (("--pairs", f"{others}=0.3", *same[2:]), ("was started with data 3 photographs ", "=0.3, not 3 ", "=0.3; ")),
        (same[2:], ("was started with data 3 photographs ", "=0.3, not 3 photographs ")),
        ((*same[:2], "--validate", others, "--resume"), ("was started with validation 1 pairs ", ", not 1 pairs ")),
    ):
        refused = train(moved, *options)
        assert refused.exit_code == 2 and all(word in refused.stderr for word in words), refused.stderr
        assert "resume with the original options and data" in refused.stderr
    assert train(moved, *same[:2], "--resume").exit_code == 0, "nothing is validated, so nothing is compared"
    write(moved / "3.png", photo(40, 48, 3))
    assert "3 photographs" in (refused := train(moved, *same)).stderr and "not 4 photographs" in refused.stderr


def test_resumed_without_its_beginning_it_keeps_the_terms(clean: Path, tmp_path: Path, run: Run) -> None:
    begun = tmp_path / "begun.safetensors"
    save(begun, tiny_network(LEAST).state_dict(), LEAST, {"license": "NC", "trained_on": "a"})
    train = ("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 1, *FEW)
    assert run(*train, "--init", begun).exit_code == 0
    with safe_open(tmp_path / "run" / "state.safetensors", "pt") as file:
        header, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["run"] = json.dumps({**json.loads(header["run"]), "step": 0})  # as if it had been killed
    save_file(tensors, tmp_path / "run" / "state.safetensors", header)
    assert run(*train, "--resume").exit_code == 0
    metadata = open_checkpoint(str(tmp_path / "run" / "last.safetensors")).metadata
    assert metadata["license"] == "NC" and metadata["trained_on"] == f"a; then {clean}"


def test_two_processes_train_together_and_resume(clean: Path, tmp_path: Path, run: Run) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def train(folder: str, *options: object) -> list[str]:
        command = esdnet("train", "--clean", clean, "-o", tmp_path / folder, "--steps", 3, *FEW, *options)
        return torchrun + command[1:]

    done = subprocess.run(train("run"), capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 steps in") == 1, "one process speaks"
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3]
    alone = run("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 3, *FEW, "--resume")
    assert alone.exit_code == 2
    assert "was started with 2 processes; resume with the same number" in alone.stderr


@pytest.mark.parametrize("processes", ["2", "x"])  # as a cluster's own script may set it
def test_half_an_environment_of_torchrun_is_one_line(
    processes: str, clean: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("LOCAL_RANK", "x")
    monkeypatch.delenv("RANK", raising=False)
    refused = run("train", "--clean", clean, "-o", tmp_path / "run", "--steps", 1, *FEW)
    assert refused.exit_code == 2
    assert f"Error: WORLD_SIZE={processes}: " in refused.stderr and "unset WORLD_SIZE" in refused.stderr


def test_interrupted_it_says_where_to_go_on(clean: Path, tmp_path: Path) -> None:
    command = esdnet("train", "--clean", clean, "-o", tmp_path / "run", "--minutes", 5, *FEW)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "log.jsonl").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    found = re.search(r"Interrupted at step (\d+); --resume continues from step (\d+)", errors)
    assert found and found[1] == found[2], "nothing is lost"
    with subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any(line.endswith(f"from step {found[1]}\n") for line in process.stderr)
        finally:
            process.kill()


def test_one_press_that_comes_twice_is_one(clean: Path, tmp_path: Path) -> None:
    """As launchers hand it on; SIGTERM counts as much."""
    command = esdnet("train", "--clean", clean, "-o", tmp_path / "run", "--minutes", 5, *FEW)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "log.jsonl").exists():
            time.sleep(0.02)
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 130
    found = re.search(r"Interrupted at step (\d+); --resume continues from step (\d+)", errors)
    assert found and found[1] == found[2]
