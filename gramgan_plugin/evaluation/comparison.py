"""Compare models on one image: a labelled picture of crops, and a page with a slider."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.pictures import Image, detailed_window, labelled
from gramgan_plugin.version import __version__

# No request is allowed; the script has no text of the user's.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 96rem; padding: 0 1rem; color: #1c1c1c;
       background: #fff }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; margin: .5rem 0 }
.bar input[type=range] { flex: 1 1 16rem }
.frame { overflow: auto; max-height: 75vh; max-width: max-content; border: 1px solid #ccc }
.stack { position: relative; width: max-content }
.stack img { display: block; image-rendering: pixelated; width: calc(var(--zoom, 1) * {{ width }}px) }
.stack img.right { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut, 50%)) }
.stack i { position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 2px; margin-left: -1px;
           background: #fff; box-shadow: 0 0 3px #000; pointer-events: none }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left } .soft { color: #666 }
img.crops { max-width: 100% }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<div class="bar">
<label>left <select id="left">{% for label in labels %}<option value="{{ loop.index0 }}">{{ label }}</option>
{% endfor %}</select></label>
<input id="cut" type="range" min="0" max="100" step="0.1" value="50" aria-label="position of the slider">
<label>right <select id="right">{% for label in labels %}<option value="{{ loop.index0 }}"
{%- if loop.last %} selected{% endif %}>{{ label }}</option>{% endfor %}</select></label>
<label>zoom <select id="zoom"><option value="0.5">1/2</option><option value="1" selected>1</option>
<option value="2">2</option><option value="4">4</option></select></label>
</div>
<div class="frame"><div class="stack" id="stack">
<img class="left" alt="left"><img class="right" alt="right"><i></i>
</div></div>
{% if rows %}
<table><tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}
</table>
{% endif %}
<h2>Crops</h2>
<img class="crops" src="{{ crops }}" alt="crops of all results">
<p class="soft">gramgan-plugin {{ version }}</p>
<div id="images" hidden>{% for image in images %}<img src="{{ image }}" alt="">{% endfor %}</div>
<script>
const images = document.querySelectorAll("#images img"), stack = document.getElementById("stack");
function show(side) {
  stack.querySelector("." + side).src = images[document.getElementById(side).value].src;
}
for (const side of ["left", "right"]) {
  document.getElementById(side).addEventListener("change", () => show(side));
  show(side);
}
const cut = document.getElementById("cut");
cut.addEventListener("input", () => stack.style.setProperty("--cut", cut.value + "%"));
document.getElementById("zoom").addEventListener("change", (event) =>
  stack.style.setProperty("--zoom", event.target.value));
stack.addEventListener("pointermove", (event) => {
  if (event.buttons !== 1) return;
  const box = stack.getBoundingClientRect();
  cut.value = 100 * (event.clientX - box.left) / box.width;
  cut.dispatchEvent(new Event("input"));
});
stack.addEventListener("dragstart", (event) => event.preventDefault());
</script>
</body>
</html>
"""


def zoomed_crops(images: Mapping[str, Image], crop: int = 96, zoom: int = 3, count: int = 3) -> Image:
    """Draw crops of several versions of an image, a version a column, under its label.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size. The crops are where the last one has the most detail.
        crop: side of a crop in pixels; smaller if the image is.
        zoom: whole-number enlargement by repeating pixels.
        count: rows.

    Raises:
        ValueError: if ``images`` is empty or their sizes differ.
    """
    remaining = list(images.values())[-1].copy()
    rows = []
    for _ in range(count):
        rows_of, columns_of = detailed_window(remaining, crop)
        rows.append(labelled({label: image[rows_of, columns_of] for label, image in images.items()}, zoom=zoom))
        remaining[rows_of, columns_of] = 0
        if min(remaining.shape[:2]) <= crop:
            break
    gap = np.full((8, rows[0].shape[1], 3), 255, np.uint8)
    parts = [part for row in rows for part in (row, gap)]
    return np.concatenate(parts[:-1])


def write_comparison(
    images: Mapping[str, Image], out: Path, title: str, columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> tuple[Path, Path]:
    """Write ``OUT.png`` (crops of all images) and ``OUT.html``, a page without other files.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size.
        out: the files' path; a suffix .png or .html is removed.
        title: of the page; like the labels it may come from file names, and is escaped.
        columns: names of a table's columns.
        rows: its rows.

    Returns:
        The two files.

    Raises:
        UserError: if they cannot be written.
        ValueError: if ``images`` is empty or their sizes differ.
    """
    import jinja2

    stem = without_suffix(out)
    crops = zoomed_crops(images)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_PAGE).render(
        title=title,
        labels=list(images),
        images=[_data_url(image) for image in images.values()],
        crops=_data_url(crops),
        width=next(iter(images.values())).shape[1],
        columns=columns,
        rows=rows,
        version=__version__,
    )
    picture, html = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.html")
    replace_file(picture, _png(crops))
    replace_file(html, page.encode(errors="backslashreplace"))
    return picture, html


def without_suffix(out: Path) -> Path:
    """Return the path of both files without .png or .html.

    Raises:
        UserError: if it is a folder.
    """
    if out.name in ("", "..") or out.is_dir():
        raise UserError(f"{out}: a folder; give the name of the files, without suffix")
    return out.with_suffix("") if out.suffix.lower() in (".png", ".html") else out


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _data_url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"
