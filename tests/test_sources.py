"""What inputs name which pictures, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import write

from esdnet_cli.errors import EsdnetError
from esdnet_cli.pipeline.sources import Source, find_sources, plan_outputs
from esdnet_cli.video.inputs import find_clips


def names(sources: list[Source]) -> list[str]:
    return [source.relative.as_posix() for source in sources]


def test_folders_are_searched_by_ending(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "sub/c.webp", "sub/.d/e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert names(find_sources([str(tmp_path)], recursive=False)[0]) == ["a.JPG", "b.png"]
    assert names(find_sources([str(tmp_path)], recursive=True)[0]) == ["a.JPG", "b.png", "sub/c.webp"]


def test_loops_of_links_end_and_linked_files_count(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "b.png").symlink_to(tmp_path / "real" / "a.png")
    assert names(find_sources([str(tmp_path / "real")], recursive=True)[0]) == ["a.png", "b.png"]


def test_outputs_of_ours_are_no_inputs(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "derained" / "a.png")
    found, _ = find_sources([str(tmp_path)], recursive=True, leave_out=[tmp_path / "derained"])
    assert names(found) == ["a.png"]
    found, _ = find_sources([str(tmp_path / "**" / "*.png")], recursive=False, leave_out=[tmp_path / "derained"])
    assert names(found) == ["a.png"]


def test_patterns_keep_the_place_below_their_root(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "y/b.jpg"):
        write(tmp_path / name)
    assert names(find_sources([str(tmp_path / "*" / "*.png")], False)[0]) == ["x/a.png", "y/a.png"]
    assert names(find_sources([str(tmp_path / "y" / "[ab].*")], False)[0]) == ["a.png", "b.jpg"]


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    path = write(tmp_path / "rain[1].png")
    assert names(find_sources([str(path)], False)[0]) == ["rain[1].png"]


def test_inputs_without_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inputs = [str(tmp_path / "empty"), str(tmp_path / "missing.png"), str(tmp_path / "*.gif")]
    found, unusable = find_sources(inputs, recursive=False)
    assert not found
    assert [entry.input for entry in unusable] == inputs
    assert "-r looks into subfolders" in unusable[0].error
    assert "no such file" in unusable[1].error
    assert "matches no picture" in unusable[2].error


def test_one_file_named_twice_is_derained_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    found, _ = find_sources([str(tmp_path), str(path), os.path.relpath(path)], recursive=False)
    assert len(found) == 1


def test_two_inputs_on_one_name_are_refused(tmp_path: Path) -> None:
    sources = [Source(tmp_path / "x" / "a.png", Path("a.png")), Source(tmp_path / "y" / "a.jpg", Path("a.jpg"))]
    jobs = plan_outputs(sources, tmp_path / "out", None)
    assert [job.output for job in jobs] == [tmp_path / "out" / "a.png", tmp_path / "out" / "a.jpg"]
    with pytest.raises(EsdnetError, match=r"a\.png and .*a\.jpg would both become .*; .*folder above both, with -r"):
        plan_outputs(sources, tmp_path / "out", "webp")


def test_what_becomes_another_format_makes_room(tmp_path: Path) -> None:
    sources = [Source(tmp_path / name, Path(name)) for name in ("a.HEIC", "a.jpg", "a.mpo", "b.heic", "b.png", "c.j2k")]
    jobs = plan_outputs(sources, tmp_path / "out", None)
    names = [job.output.name for job in jobs if job.output]
    assert names == ["a.HEIC.jpg", "a.jpg", "a.mpo.jpg", "b.jpg", "b.png", "c.jp2"]
    with pytest.raises(
        EsdnetError, match=r"a\.HEIC and .*a\.jpg would both become .*; rename one, or leave out --format"
    ):
        plan_outputs(sources, tmp_path / "out", "webp")


def test_writing_over_an_input_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(EsdnetError, match="would be written over an input"):
        plan_outputs([Source(path, Path("a.png"))], tmp_path / "link", None)


def test_outputs_beside_or_above_the_input_hide_nothing(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "rainy" / "a.png")
    inputs = [str(tmp_path / "photos" / "rainy")]
    for outputs in (tmp_path / "photos", tmp_path, tmp_path / "elsewhere"):
        assert names(find_sources(inputs, recursive=False, leave_out=[outputs])[0]) == ["a.png"]
    with pytest.raises(EsdnetError, match="both input and output folder"):
        find_sources(inputs, recursive=False, leave_out=[tmp_path / "photos" / "x" / ".." / "rainy"])


def test_patterns_take_pictures_only_and_survive_loops(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.png")
    (tmp_path / "d" / "notes.txt").write_text("a list")
    (tmp_path / "d" / "0loop").symlink_to(tmp_path / "d")
    write(tmp_path / "d" / "sub" / "b.png")
    (found, _) = find_sources([str(tmp_path / "d" / "**")], recursive=False)
    assert [str(source.relative) for source in found] == ["a.png", "sub/b.png"], "by the shortest way"


def test_pipes_and_dangling_links_are_no_inputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    found, unusable = find_sources([str(tmp_path / "pipe.png"), str(tmp_path / "link.png")], recursive=False)
    assert not found and ["neither a file nor a folder" in entry.error for entry in unusable] == [True, True]
    assert names(find_sources([str(tmp_path)], recursive=False)[0]) == ["link.png"], "a broken link is named when read"


def test_names_that_differ_in_case_only_are_two(tmp_path: Path) -> None:
    sources = [Source(tmp_path / name, Path(name)) for name in ("p.png", "P.PNG", "straße.png", "strasse.png")]
    assert len(plan_outputs(sources, tmp_path / "out", None)) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_any_shell_writes_them(encoding: str, tmp_path: Path) -> None:
    names = [write(tmp_path / f"{name}.png") for name in ("rain", "größer")]
    (tmp_path / "list.txt").write_bytes("\r\n".join(map(str, names)).encode(encoding))
    sources, unusable = find_sources([f"@{tmp_path / 'list.txt'}"], recursive=True)
    assert [source.path for source in sources] == names and not unusable


def test_lists_and_names_that_are_empty_are_said(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\n \n")
    sources, unusable = find_sources([f"@{tmp_path / 'list'}", ""], recursive=False)
    assert not sources
    assert (unusable[0].input, unusable[0].error[:22]) == (f"@{tmp_path / 'list'}", "the list names nothing")
    assert unusable[1].input == "an empty name"


def test_a_picture_is_no_list(tmp_path: Path) -> None:
    picture = write(tmp_path / "rain.png")
    sources, unusable = find_sources([f"@{picture}"], recursive=False)
    assert not sources and [entry.input for entry in unusable] == [f"@{picture}"]
    assert unusable[0].error == "is a picture, not a list of names; leave out the @"


def test_a_name_that_no_system_takes_is_a_missing_file() -> None:
    _, (unusable,) = find_sources(["a" * 5000], recursive=False)
    assert "no such file or folder" in unusable.error


def test_a_file_in_a_closed_folder_is_not_called_absent(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.mp4").touch()
    folder.chmod(0)
    everything = os.geteuid() == 0  # root may look everywhere
    if everything:
        os.seteuid(65534)
    try:
        _, pictures = find_sources([str(folder / "a.png")], recursive=False)
        _, clips = find_clips([str(folder / "a.mp4")], tmp_path / "out.mp4")
    finally:
        if everything:
            os.seteuid(0)
        folder.chmod(0o700)
    expected = "cannot be looked at: Permission denied; check the permissions of its folder"
    assert [each.error for each in (*pictures, *clips)] == [expected] * 2
