"""One folder over several processes: nothing twice, nothing lost, reports that become one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, load_json, photo, write

from esdnet_cli.errors import EsdnetError
from esdnet_cli.shards import Shard, find_shard

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rainy(tmp_path: Path) -> Path:
    """Five pictures and a broken one."""
    for index in range(5):
        write(tmp_path / "rainy" / f"{index}.png", photo(20 + index, 30, index))
    write(tmp_path / "rainy" / "5.png").write_bytes(b"nothing")
    return tmp_path / "rainy"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_complete(count: int) -> None:
    shares = [Shard(index, count).take(range(10)) for index in range(1, count + 1)]
    assert sorted(sum(shares, [])) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, (1, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (1, 1)),  # a batch script outside srun does all the work
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
    ],
    ids=str,
)
def test_launchers(environment: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shard = find_shard(None)
    assert (shard.index, shard.count) == expected
    assert find_shard("2/3") == Shard(2, 3, "--shard"), "the option goes first"


@pytest.mark.parametrize("given", ["0/4", "5/4", "1", "a/b", "1/2/3", "", "-1/4"])
def test_no_share(given: str) -> None:
    with pytest.raises(EsdnetError, match="is not a valid share"):
        find_shard(given)


def test_shards_do_all_work_once_and_their_reports_merge(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole.json"
    run("energy", rainy, "--weights", tiny, "--report", whole)
    done = [
        run("images", rainy, "-o", out, "--weights", tiny, "--shard", f"{i}/2", "--report", tmp_path / "r.json")
        for i in (1, 2)
    ]
    assert [result.exit_code for result in done] == [0, 1], "the broken picture is the second shard's"
    assert "Shard 1 of 2 (--shard): 3 of 6 pictures." in done[0].stderr
    assert sorted(path.name for path in out.glob("*.png")) == [f"{index}.png" for index in range(5)]
    reports = [tmp_path / f"r.shard-{i}-of-2.json" for i in (1, 2)]
    merged = run("energy", "--merge", *reports, "--report", tmp_path / "all.json")
    assert merged.exit_code == 1 and "5 done, 0 skipped, 1 failed" in merged.stdout
    expected, found = load_json(whole), load_json(tmp_path / "all.json")
    assert found["totals"]["break_even_spike_rate"] is expected["totals"]["break_even_spike_rate"] is None
    views = {view["name"]: view["below"] for view in expected["totals"].pop("views")}
    assert {view["name"]: view["below"] for view in found["totals"]["views"]} == pytest.approx(views, rel=1e-9)
    for key in set(expected["totals"]) - {"seconds", "break_even_spike_rate"}:
        assert found["totals"][key] == pytest.approx(expected["totals"][key], rel=1e-12), key
    by_input = {image["input"]: image for image in found["images"]}
    for image in expected["images"]:
        assert by_input[image["input"]]["layers"] == image["layers"]


def test_a_rerun_picks_up_a_dead_shard(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    command = ("images", rainy, "-o", tmp_path / "out", "--weights", tiny)
    run(*command, "--shard", "1/2")
    again = run(*command)
    assert "2 done, 3 skipped, 1 failed" in again.stdout


def test_counts_are_priced_anew_without_running(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    run("energy", rainy, "--weights", tiny, "--report", tmp_path / "a.json")
    run("energy", rainy, "--weights", tiny, "--report", tmp_path / "b.json", "--energy-preset", "int8-45nm")
    preset = ("--energy-preset", "int8-45nm", "--report", tmp_path / "c.json")
    assert run("energy", "--merge", tmp_path / "a.json", *preset).exit_code == 1  # of the broken picture
    assert (
        load_json(tmp_path / "c.json")["totals"]["energy_mj"] == load_json(tmp_path / "b.json")["totals"]["energy_mj"]
    )


def test_a_price_that_is_not_given_stays_the_reports(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    run(
        "energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "a.json", "--energy-preset", "int8-45nm"
    )
    before = load_json(tmp_path / "a.json")["run"]
    assert run("energy", "--merge", tmp_path / "a.json", "--pj-ac", 0.5, "--report", tmp_path / "b.json").exit_code == 0
    assert load_json(tmp_path / "b.json")["run"]["pj_ac"] == 0.5 != before["pj_ac"]
    assert load_json(tmp_path / "b.json")["run"]["pj_mac"] == before["pj_mac"] < 4.6
    assert (
        f"{before['pj_mac']:g} pJ a MAC, 0.5 pJ an AC"
        in run("energy", "--compare", tmp_path / "a.json", tmp_path / "a.json", "--pj-ac", 0.5).stdout
    )


@pytest.mark.parametrize("precision, known", [("fp32", True), ("bf16", False)])
def test_reports_from_before_a_key_was_added_are_priced_anew(
    precision: str, known: bool, rainy: Path, tiny: Path, tmp_path: Path, run: Run
) -> None:
    options = ("--precision", precision, "--energy-preset", "int8-sum32-45nm", "--report", tmp_path / "new.json")
    run("energy", rainy, "--weights", tiny, *options)
    old = load_json(tmp_path / "new.json")
    del old["run"]["sum_bits"]
    for image in old["images"]:
        for layer in image["layers"]:
            del layer["precision"], layer["weights"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert run("energy", "--merge", tmp_path / "old.json", "--report", tmp_path / "anew.json").exit_code == 1
    anew = load_json(tmp_path / "anew.json")
    for key in ("energy_mj", "memory_mj", "memory_no_reuse_mj", "ann_memory_no_reuse_mj", "equal_cost_dim"):
        assert anew["totals"][key] == pytest.approx(old["totals"][key]), key
    assert anew["totals"]["energy_as_run_mj"] == (pytest.approx(old["totals"]["energy_as_run_mj"]) if known else None)
    names = [view["name"] for view in anew["totals"]["views"]]
    assert names == [view["name"] for view in old["totals"]["views"] if known or "formats as run" not in view["name"]]
    assert run("energy", "--merge", tmp_path / "anew.json", "--report", tmp_path / "again.json").exit_code == 1
    assert load_json(tmp_path / "again.json")["totals"] == anew["totals"]


def test_reports_that_do_not_merge(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    run("energy", rainy, "--weights", tiny, "--report", tmp_path / "a.json")
    run("energy", rainy, "--weights", tiny, "--tile", "24", "--report", tmp_path / "b.json")
    (tmp_path / "list.json").write_text("[]")
    report = load_json(tmp_path / "a.json")
    report["weights"]["config"]["dim"] = 0
    (tmp_path / "config.json").write_text(json.dumps(report))
    report = load_json(tmp_path / "a.json")
    report["images"][0]["layers"][0]["cause"] = "rain"
    (tmp_path / "cause.json").write_text(json.dumps(report))
    report = load_json(tmp_path / "a.json")
    for name, cost in (("nan", math.nan), ("negative", -1.0)):
        report["run"]["pj_mac"] = cost
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    (tmp_path / "schema.json").write_text(json.dumps(load_json(tmp_path / "a.json") | {"schema": 9}))
    for other, message in {
        "b.json": "was made with other weights, precision or tiling",
        "config.json": "is not a JSON report of this version",
        "cause.json": "is not a JSON report of this version",
        "nan.json": "is not a JSON report of this version",
        "negative.json": "is not a JSON report of this version",
        "list.json": "is not a JSON report of this version",
        "schema.json": "is not a JSON report of this version",
        "absent.json": "No such file",
    }.items():
        result = run("energy", "--merge", tmp_path / "a.json", tmp_path / other)
        assert result.exit_code == 2 and message in result.stderr and other in result.stderr, other


def test_merged_is_what_was_done_last_best(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    """A picture that failed, was mended and done again counts as done, with or without counts."""
    write(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--no-energy")
    assert run(*command, "--report", tmp_path / "1.json").exit_code == 1
    write(tmp_path / "in" / "b.png")
    assert run(*command, "--report", tmp_path / "2.json").exit_code == 0
    for reports in (("1.json", "2.json"), ("2.json", "1.json")):
        merged = ("energy", "--merge", *(tmp_path / name for name in reports), "--report", tmp_path / "all.json")
        planned = run(*merged, "--dry-run")
        assert planned.exit_code == 0 and not (tmp_path / "all.json").exists()
        assert run(*merged).exit_code == 0
        assert [image["status"] for image in load_json(tmp_path / "all.json")["images"]] == ["ok", "ok"]
        (tmp_path / "all.json").unlink()


def test_two_pictures_of_one_name_are_not_taken_for_one(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        write(tmp_path / "one.png", photo(seed=seed))
        run("energy", tmp_path / "one.png", "--weights", tiny, "--report", tmp_path / f"{name}.json")
    result = run("energy", "--merge", tmp_path / "a.json", tmp_path / "b.json")
    assert result.exit_code == 2 and "two pictures share this name" in result.stderr and "b.json" in result.stderr
    again = run("energy", "--merge", tmp_path / "a.json", tmp_path / "a.json")
    assert again.exit_code == 0 and "1 done" in again.stdout, "the same picture twice is one"


def test_a_report_from_a_stranger_brings_no_markup(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "one.png")
    run("energy", tmp_path / "one.png", "--weights", tiny, "--report", tmp_path / "a.json")
    report = load_json(tmp_path / "a.json")
    layers = report["images"][0]["layers"]
    script = "<img src=x onerror=alert(1)>"
    for layer in layers:
        layer["name"] = script + layer["name"]
    report["run"]["command"] = report["weights"]["name"] = report["images"][0]["input"] = script
    (tmp_path / "b.json").write_text(json.dumps(report))
    assert run("energy", "--merge", tmp_path / "b.json", "--report", tmp_path / "b.html").exit_code == 0
    page = (tmp_path / "b.html").read_text()
    assert "&lt;img" in page and "<img src=x" not in page
    layers[3]["spikes"] = "many"
    (tmp_path / "b.json").write_text(json.dumps(report))
    refused = run("energy", "--merge", tmp_path / "b.json")
    assert refused.exit_code == 2 and "is not a JSON report of this version" in refused.stderr


def test_under_torchrun(rainy: Path, tiny: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "esdnet_cli", "images", rainy, "-o", tmp_path / "out", "--weights", tiny, "--device", "cpu"]
    done = subprocess.run(
        [*launch, *command, "--report", tmp_path / "r.json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, "the broken picture must not make torchrun stop the other process"
    assert "failed: " in done.stderr and len(list((tmp_path / "out").glob("*.png"))) == 5, done.stderr
    statuses = [image["status"] for i in (1, 2) for image in load_json(tmp_path / f"r.shard-{i}-of-2.json")["images"]]
    assert sorted(statuses) == ["failed"] + 5 * ["ok"]
