"""The group: help, start-up, errors; and the README, which must stay true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import Run, photo, write

from esdnet_cli import __version__
from esdnet_cli.cli import COMMANDS, cli
from esdnet_cli.training.synth import MAX_VEIL_OF
from esdnet_cli.video.encoder import CODECS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS)], ids=lambda command: "".join(command) or "esdnet"
)
def test_help_stands_in_the_docs(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"], prog_name="esdnet", terminal_width=100)
    assert result.exit_code == 0
    assert "Example" in result.stdout
    page = (ROOT / "docs" / "cli.md").read_text()
    assert f"```\n{result.stdout.strip()}\n```" in page, "run python tools/write_cli_docs.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_environment_variable(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    for option in (each for each in found.params if isinstance(each, click.Option)):
        long = next(name for name in option.opts if name.startswith("--"))
        assert option.envvar == "ESDNET_" + long[2:].replace("-", "_").upper(), long


@pytest.mark.parametrize("command, name, known", [("video", "codec", CODECS), ("synth", "rain", MAX_VEIL_OF)])
def test_choices_that_help_shows_are_those_that_are_known(command: str, name: str, known: Collection[str]) -> None:
    """Where they are known takes too long to import for a help text."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    (choice,) = (each.type for each in found.params if each.name == name)
    assert isinstance(choice, click.Choice) and [*choice.choices] == [*known]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "weights" / "README.md", *PAGES], ids=lambda path: path.name
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", page.read_text())
    assert links or page.parent.name == "docs"
    for target, _ in links:
        if target and not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_pypi_gets_a_page_without_dead_links() -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    page = README
    for change in hook["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(change["pattern"], change["replacement"], page)
    assert len(page) > 0.8 * len(README) and "docs/images.md" in page
    assert {target[:8] for target in re.findall(r"\]\(([^)]*)\)", page)} == {"https://"}


FAULT = """
import sys
from esdnet_cli.cli import cli
from esdnet_cli.pipeline import derainer

def fall_over(*arguments, **options):
    raise RuntimeError("deliberate")

if sys.argv[1] == "picture":
    derainer.Derainer.__call__ = fall_over
else:
    derainer.Inference = fall_over
cli(sys.argv[2:])
"""


@pytest.mark.parametrize("where, code", [("picture", 1), ("start", 2)])
def test_an_unexpected_error_is_one_line_and_a_traceback_for_whoever_asks(
    where: str, code: int, tiny: Path, tmp_path: Path
) -> None:
    picture = write(tmp_path / "a.png", photo())
    command = [sys.executable, "-c", FAULT, where, "energy", str(picture), "--weights", str(tiny), "-q"]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert plain.returncode == code and "Traceback" not in plain.stderr
    assert "unexpected RuntimeError: deliberate" in plain.stderr and "ESDNET_DEBUG=1" in plain.stderr
    asked = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ESDNET_DEBUG": "1"})
    assert asked.returncode == code
    assert 'File "<string>"' in asked.stderr and "in fall_over" in asked.stderr


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"esdnet, version {__version__}\n"
    dated = re.search(
        rf"^## {re.escape(__version__)} \((\d{{4}}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert dated
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {__version__}" in citation and f"date-released: {dated[1]}" in citation


def test_one_sentence_says_everywhere_what_this_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cli.help and cli.help.split("\n\n")[0].replace("\n", " ") == f"{project['description']}."
    assert f"abstract: {project['description']}." in (ROOT / "CITATION.cff").read_text().splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP runtime")
@pytest.mark.parametrize("setting, expected", [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_politely_unless_told_otherwise(setting: dict[str, str], expected: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_WAIT", "GOMP_"))}
    write(tmp_path / "in" / "a.png", photo(8, 8))
    shown = subprocess.run(
        [sys.executable, "-m", "esdnet_cli", "images", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--dry-run"],
        env=environment | setting | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"GOMP_SPINCOUNT = '{expected}'" in shown.stderr


def test_unknown_command_is_usage(run: Run) -> None:
    result = run("derain")
    assert result.exit_code == 2 and "No such command" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["images", "--help"], ["weights", "--help"]], ids=str)
def test_help_imports_neither_torch_nor_opencv(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom esdnet_cli.cli import cli\n"
        f"try:\n    cli({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'cv2', 'numpy', 'rich', 'tqdm', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


SAMPLES = str(ROOT / "samples")
ANSWERED = {
    "weights": (["weights"], 0, "small"),
    "an empty name": (["images", SAMPLES, "-o", ""], 2, "is empty; give a name"),
    "no picture": (["images", "nosuch.png", "-o", "out"], 1, "nosuch.png: no such file or folder"),
    "nothing to measure": (["energy", "nosuch.png"], 1, "nosuch.png: no such file or folder"),
    "nothing to score": (["evaluate", "--input", "nosuch", "--target", SAMPLES], 1, "nosuch: no such file or folder"),
    "nothing to score as it is": (["evaluate", "--as-is", "--input", "nosuch", "--target", SAMPLES], 1, "nosuch: no"),
    "no targets": (["evaluate", "--input", SAMPLES, "--target", "nosuch"], 2, "nosuch: is not a folder"),
    "no weights to score": (
        ["evaluate", "--input", SAMPLES, "--target", SAMPLES, "--weights", "none"],
        2,
        "none: no such checkpoint",
    ),
    "no weights to measure": (["energy", SAMPLES, "--weights", "none"], 2, "none: no such checkpoint"),
    "no weights for frames": (["video", "frames", "-o", "out", "--weights", "none"], 2, "none: no such checkpoint"),
    "no weights for a clip": (["video", "a.mp4", "-o", "b.mp4", "--weights", "none"], 2, "none: no such checkpoint"),
    "no clip": (["video", "nosuch.mp4", "-o", "out.mp4"], 1, "nosuch.mp4: no such file"),
    "no weights": (["images", SAMPLES, "-o", "out", "--weights", "nosuch"], 2, "no such checkpoint"),
    "wrong option": (["images", "x", "-o", "out", "--tile", "3"], 2, "3 is too small"),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_what_needs_no_network_does_not_wait_for_torch(case: str, tmp_path: Path) -> None:
    arguments, code, words = ANSWERED[case]
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "frames").mkdir()
    (tmp_path / "torch.py").write_text("raise AssertionError('imported')")
    (tmp_path / "cv2.py").write_text("raise AssertionError('imported')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "esdnet_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == code and words in done.stdout + done.stderr, done.stderr
    assert "imported" not in done.stderr


def test_opencv_without_its_system_library_names_the_package(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    picture, out = str(write(tmp_path / "x.png")), str(tmp_path / "out")
    command = [sys.executable, "-m", "esdnet_cli", "images", picture, "-o", out, "--weights", str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "libGL.so.1" in done.stderr and "apt-get install libgl1 libglib2.0-0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_module_and_script_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "esdnet_cli", "--version"], capture_output=True, text=True)
    assert done.stdout == f"esdnet, version {__version__}\n"


def test_readme_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    write(tmp_path / "rainy.png", photo())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet, names)
    assert (tmp_path / "derained.png").exists()
    assert 0 < names["derained"].activity.spike_rate < 1  # type: ignore[attr-defined]


def test_library_refuses_what_is_no_picture(tiny: Path) -> None:
    import esdnet_cli

    derainer = esdnet_cli.load(str(tiny), device="cpu")
    for image, message in (
        (photo()[..., 0], r"must be \[H, W, 3\]"),
        (photo().astype("float64"), "uint8, uint16 or float32"),
        (photo()[:0], r"must be \[H, W, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            derainer(image)
    for wrong in ({"precision": "fp16"}, {"tile": -5}, {"overlap": -1}, {"batch": 0}, {"tile": 8, "overlap": 8}):
        with pytest.raises(esdnet_cli.EsdnetError):
            esdnet_cli.load(tiny, device="cpu", **wrong)
    assert derainer(photo(), count=False).activity is None
    with pytest.raises(esdnet_cli.CheckpointError):
        esdnet_cli.load("nothing")
    with pytest.raises(AttributeError, match="no attribute 'derain'"):
        esdnet_cli.derain  # noqa: B018
