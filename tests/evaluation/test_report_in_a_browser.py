"""The report's page in a real browser: sorting, the slider, a narrow window. Skipped where there is no Chromium."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from gramgan_plugin.cli.main import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """A report on two sets of two images, of bicubic and of two folders of results, one of which lacks an image."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate(("cat", "coffee")):
        photo = Image.fromarray((skimage.data.chelsea, skimage.data.coffee)[number]()[:200, :240])
        for place in ("Set5/HR", "Set14/HR"):
            (folder / "data" / place).mkdir(parents=True, exist_ok=True)
            photo.save(folder / "data" / place / f"{name}.png")
        for model, side in (("sharp", 2), ("a blurred one", 8)):
            (folder / model).mkdir(exist_ok=True)
            if (model, name) != ("sharp", "coffee"):
                small = photo.resize((photo.width // side, photo.height // side))
                small.resize(photo.size).save(folder / model / f"{name}.png")
    models = ["bicubic", str(folder / "a blurred one"), str(folder / "sharp")]
    arguments = ("--data", str(folder / "data"), "--metrics", "psnr_y,mse", "-o", str(folder / "report"))
    assert main(["benchmark", "-m", *models, *arguments, "--device", "cpu"]) == 3
    return (folder / "report" / "index.html").read_text()


def opened(page: str, script: str, folder: Path, width: int = 1200) -> Any:
    """Return what a script finds in the opened page."""
    code = f"""<script>
const result = (() => {{ {script} }})();
const note = document.createElement("pre");
note.id = "found";
note.textContent = JSON.stringify(result);
document.body.append(note);
</script></body>"""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", code))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--window-size={width},900"]
    options += [f"--user-data-dir={folder / 'profile'}", "--disable-background-networking"]
    assert BROWSER is not None
    done = subprocess.run([BROWSER, *options, path.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def test_sorting(page, tmp_path):
    """The best first, the other way at the second click, and what was not measured last."""
    script = """
    const table = document.querySelector("table.sortable"), orders = {};
    for (const [name, column, clicks] of [["psnr", 1, 1], ["worst", 1, 2], ["mse", 2, 1], ["model", 0, 1]]) {
      for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
      for (let i = 0; i < clicks; i++) table.tHead.rows[0].cells[column].querySelector("button").click();
      orders[name] = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
      orders[name].push(table.tHead.rows[0].cells[column].getAttribute("aria-sort"));
    }
    return orders;
    """
    found = opened(page, script, tmp_path)
    assert found["psnr"] == ["sharp", "bicubic", "a blurred one", "descending"]
    assert found["worst"] == ["a blurred one", "bicubic", "sharp", "ascending"]
    assert found["mse"] == ["sharp", "bicubic", "a blurred one", "ascending"]
    assert found["model"] == ["a blurred one", "bicubic", "sharp", "ascending"]


def test_the_slider(page, tmp_path):
    script = """
    const stack = document.getElementById("stack"), chosen = (name) => document.getElementById(name);
    const shown = () => [...stack.querySelectorAll("img")].map((one) => one.alt);
    const found = {hidden: chosen("slider").hidden, first: shown()};
    chosen("cut").value = 20;
    chosen("cut").dispatchEvent(new Event("input"));
    found.cut = getComputedStyle(stack).getPropertyValue("--cut");
    found.clip = getComputedStyle(stack.querySelector("img.right")).clipPath;
    chosen("zoom").value = "4";
    chosen("zoom").dispatchEvent(new Event("change"));
    found.width = stack.querySelector("img.left").getBoundingClientRect().width;
    chosen("left").value = 1;
    chosen("left").dispatchEvent(new Event("change"));
    found.second = shown();
    chosen("image").value = 3;
    chosen("image").dispatchEvent(new Event("change"));
    found.third = shown();
    found.same = stack.querySelector("img.left").src === document.querySelectorAll("figure.picture")[3]
      .querySelector(`img[alt="a blurred one"]`).src;
    found.labels = [...chosen("right").options].map((one) => one.textContent);
    found.broken = [...document.images].filter((one) => !one.complete || !one.naturalWidth).length;
    return found;
    """
    found = opened(page, script, tmp_path)
    assert not found["hidden"]
    assert found["first"] == ["bicubic", "GT"]
    assert (found["cut"], found["clip"]) == ("20%", "inset(0px 0px 0px 20%)")
    assert found["width"] == 4 * 240
    assert found["second"] == ["a blurred one", "GT"]
    assert found["third"] == ["a blurred one", "GT"], "what was chosen stays"
    assert found["same"]
    assert found["labels"] == ["bicubic", "a blurred one", "GT"], "sharp has no result of this image"
    assert found["broken"] == 0


@pytest.mark.parametrize("width", [500, 1200])
def test_nothing_is_wider_than_the_window(page, tmp_path, width):
    """Wide tables scroll for themselves. (Chromium's windows have at least 500 pixels.)"""
    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth];"
    wide, window = opened(page, script, tmp_path, width)
    assert wide <= window <= width
