"""Render the HTML pages of reports from templates that lie beside the modules."""

from importlib.resources import files
from typing import Any

from gramgan_plugin.utils.text import printable
from gramgan_plugin.version import __version__


def render_page(package: str, template: str, **values: Any) -> bytes:
    """Return a page; every value is escaped, and a missing one is an error.

    Args:
        package: the package that has the template, and the files that it includes.
        template: its name.
        **values: what the template names; ``version`` and the filter ``printable`` are there, too.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files(package).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = printable
    page = environment.get_template(template).render(version=__version__, **values)
    return page.encode(errors="backslashreplace")
