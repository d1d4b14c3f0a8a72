"""The iteration that docs/training.md prints is the one that runs."""

import inspect
import re
import textwrap
from pathlib import Path

from gramgan_plugin.steps.gan_step import GANStep

DOCS = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def _without_docstring(function: object) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    return re.sub(r'\n    """.*?"""', "", source, count=1, flags=re.DOTALL)


def test_the_step_in_the_docs_is_the_code_and_fits_a_screen():
    section = DOCS.read_text(encoding="utf-8").partition("## One iteration\n")[2]
    (printed,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    own = "\n\n".join(_without_docstring(part) for part in (GANStep.__call__, GANStep._forward_backward))
    assert printed == own
    assert len(printed.splitlines()) <= 50
