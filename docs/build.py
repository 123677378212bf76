"""Write the documentation as HTML: `python docs/build.py DIRECTORY`.

Each page is one reStructuredText file in this folder. Pages link to each other by file name, so the
links also work where the sources are shown; here they are pointed at the HTML. A mistake in a page
ends the build.
"""

import re
import sys
from pathlib import Path

from docutils.core import publish_string
from docutils.utils import Reporter

SOURCES = Path(__file__).parent
_LINK = re.compile(r'href="([a-z-]+)\.rst(#[^"]*)?"')


def render(source: Path) -> str:
    """Return one page as HTML; raises docutils' SystemMessage for a mistake."""
    settings = {
        "halt_level": Reporter.WARNING_LEVEL,
        "embed_stylesheet": True,
        "output_encoding": "unicode",
        "initial_header_level": 2,
    }
    page: str = publish_string(
        source.read_text(encoding="utf-8"),
        source_path=str(source),
        writer="html5",
        settings_overrides=settings,
    )
    return _LINK.sub(r'href="\1.html\2"', page)


def main(directory: Path) -> None:
    """Render every page into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.rst")):
        (directory / source.with_suffix(".html").name).write_text(render(source), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
