"""Takes the picture of a report page for docs/report.md.

    python -m tools.report_picture OUT/report.html docs/images/report.png
    python -m tools.report_picture OUT/report.html whole.png --sections scores categories curves groups confusion videos

Needs playwright and chromium (tests/ytvis/viewer/browser.py).
"""

import sys
from pathlib import Path

from tests.ytvis.viewer.browser import launch, new_page, photograph, why_missing
from ytvis.command_line import Parser

SHOWN = ("scores", "confusion", "videos")
HIDE_THE_REST = """shown => {
    for (const section of document.querySelectorAll('main > section')) section.hidden = !shown.includes(section.id);
    for (const video of [...document.querySelectorAll('#videos h3')].slice(1)) {
        const part = video.closest('#videos > *');
        if (shown.length < 6 && part) part.hidden = true;
    }
}"""


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    parser.add_argument("--sections", nargs="+", default=list(SHOWN), help="ids of the parts to show")
    parser.add_argument("--width", type=int, default=960, help="pixels (default: %(default)s)")
    options = parser.parse_args()
    if reason := why_missing():
        print(f"report_picture: error: {reason}", file=sys.stderr)
        return 2
    with launch() as browser, new_page(browser, viewport={"width": options.width, "height": 900}) as tab:
        tab.goto(options.page.absolute().as_uri())
        tab.evaluate(HIDE_THE_REST, options.sections)
        photograph(tab, path=options.picture, full_page=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
