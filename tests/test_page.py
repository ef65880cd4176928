"""The HTML report: complete, safe, small; and in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, photo, write

from esdnet_cli.pipeline.images import Picture
from esdnet_cli.pipeline.observers import previews
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.run import Done
from esdnet_cli.pipeline.sources import Source
from esdnet_cli.show.pictures import PREVIEW_BYTES, PREVIEW_FEWEST

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def report(tiny: Path, tmp_path: Path, run: Run) -> Path:
    """Of two pictures, one with a name that HTML must not take for its own, and a broken one."""
    write(tmp_path / "in" / "a <b> & 'c'.png", photo(60, 90))
    write(tmp_path / "in" / "d.jpg", photo(80, 60))
    write(tmp_path / "in" / "e.png").write_bytes(b"nothing")
    result = run("energy", tmp_path / "in", "--weights", tiny, "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    return tmp_path / "r.html"


def test_needs_nothing_but_itself(report: Path) -> None:
    text = report.read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert links and all(link.startswith(("data:image/webp;base64,", "#")) for link in links)
    assert "url(" not in text and "@import" not in text and "http" not in re.sub(r"data:[^\"]*", "", text)
    assert {link[1:] for link in links if link.startswith("#")} == set(re.findall(r'<h2 id="([a-z]+)"', text))


def test_names_are_text_and_failures_are_told(report: Path) -> None:
    text = report.read_text()
    assert "a <b>" not in text and "a &lt;b&gt; &amp; &#39;c&#39;.png" in text
    assert re.search(r"e\.png</strong>: [^<]*not", text)


def test_says_how_it_was_made(report: Path) -> None:
    text = report.read_text()
    for part in ("4.6 pJ", "0.9 pJ", "Horowitz", "memory traffic", "SHA-256", "tiles of 16, overlap 4", "<pre>esdnet"):
        assert part in text, part
    assert text.count("<figure>") == 2 and text.count("<rect") > 10
    assert all(re.search(r"alt=\"[^\"]+\"", image) for image in re.findall(r"<img[^>]*>", text))


def test_holds_the_estimate_against_its_twin_in_many_ways(report: Path) -> None:
    text = report.read_text()
    rows = re.findall(
        r"<tr><td>([^<]+)</td><td>[\d.,]+</td><td>[\d.,]+</td><td>([\d,]+ % (?:above|below))</td></tr>", text
    )
    shares = {name: told for name, told in rows}
    assert {"fp32", "fp32, nothing reused", "int8, 32-bit sums", "formats as run, twin int8, 8-bit sums"} <= {*shares}
    (box,) = re.findall(r"from ([\d,]+ % \w+) to ([\d,]+ % \w+) its ordinary twin", text)
    assert {*box} <= {*shares.values()} and box[0] != box[1], "never one percentage alone"
    assert re.search(r"\d+ channels wide instead of 8\.", text)
    assert "int8, 32-bit sums 0.3 and 0.1; bf16 as run 2 and 0.9 (Horowitz)" in text, "prices by the same names"


def test_costs_set_by_hand_are_said_and_nothing_may_cost_nothing(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    result = run("energy", tmp_path / "a.png", "--weights", tiny, "--pj-mac", 0, "--report", tmp_path / "r.html")
    assert result.exit_code == 0
    text = (tmp_path / "r.html").read_text()
    assert "0 pJ for a multiply-accumulate" in text and "set by hand" in text


def test_pictures_scored_as_they_are(tmp_path: Path, run: Run) -> None:
    for folder, seed in (("input", 0), ("target", 1)):
        write(tmp_path / folder / "a.png", photo(40, 50, seed))
    pairs = ("--input", tmp_path / "input", "--target", tmp_path / "target")
    assert run("evaluate", *pairs, "--as-is", "--report", tmp_path / "r.html").exit_code == 0
    text = (tmp_path / "r.html").read_text()
    assert "PSNR" in text and 'id="energy"' not in text and text.count("<img") == 2


def test_two_hundred_noisy_pictures_stay_under_20_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    picture = Picture(noise, None, False)
    done = Done(Source(Path("a.png"), Path("a.png")), "", picture, picture, noise.astype(np.float16) / 255)
    preview = previews(PREVIEW_BYTES // max(200, PREVIEW_FEWEST))(done, ImageResult("a.png", None, "ok")).preview
    assert preview is not None
    stored = sum(len(part) for part in (preview.before, preview.after, *preview.spikes)) * 4 / 3
    assert 200 * (stored + 4000) < 20e6


@pytest.fixture
def browser() -> Iterator[Any]:
    reason = "no browser: pip install playwright, and chromium from the system's packages"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    if CHROMIUM is None:
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_in_a_browser(browser: Any, report: Path) -> None:
    complaints: list[str] = []
    for width, scheme in ((1280, "light"), (360, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.extend([] if request.url[:5] in ("file:", "data:") else [request.url])
        )
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        assert page.evaluate("[...document.images].every(image => image.decode && image.naturalWidth > 0)")
        colours = "[color, backgroundColor].map(text => text.match(/\\d+/g).reduce((sum, part) => sum + +part, 0))"
        ink, paper = page.evaluate(f"(({{color, backgroundColor}}) => {colours})(getComputedStyle(document.body))")
        assert abs(ink - paper) > 500 and (ink < paper) == (scheme == "light")

        compare, slider = page.locator(".compare").first, page.get_by_role("slider").first
        before = compare.locator(".before")
        clipped = "image => getComputedStyle(image).clipPath"
        at_half = before.evaluate(clipped)
        slider.focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        assert slider.input_value() == "70" and before.evaluate(clipped) != at_half
        box = compare.bounding_box()
        page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2)
        assert int(slider.input_value()) == pytest.approx(10, abs=4), "the mouse moves it, too"

        page.emulate_media(media="print")
        assert not slider.is_visible()
        pictures = [compare.locator(name).bounding_box() for name in (".after", ".before")]
        assert pictures[0]["x"] + pictures[0]["width"] <= pictures[1]["x"], "side by side on paper"
        page.close()
    assert complaints == []
