"""Takes the pictures of the viewer for docs/viewer.md: viewer.png, and viewer-phone.png in dark colours.

    python -m tools.viewer_pictures results/demo/results.json docs/images

Needs playwright and chromium (tests/ytvis/viewer/browser.py).
"""

import sys
import tempfile
from pathlib import Path

from tests.ytvis.viewer.browser import launch, new_page, photograph, why_missing
from ytvis.command_line import Parser
from ytvis.files import InputError
from ytvis.viewer.content import Content
from ytvis.viewer.export import export_page

DEMO = Path("data/ShapesVIS")
DESKTOP = {"viewport": {"width": 1280, "height": 880}}
PHONE = {
    "viewport": {"width": 390, "height": 1000},
    "device_scale_factor": 1.25,
    "is_mobile": True,
    "color_scheme": "dark",
}
PICTURES = {"viewer.png": DESKTOP, "viewer-phone.png": PHONE}
# Hides the many tracks with a lower score, as the page's slider does.
HIDE_LOW_SCORES = """score => {
    const slider = document.getElementById("min-score");
    slider.value = score;
    slider.dispatchEvent(new Event("input"));
}"""


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("folder", type=Path, help="folder for the PNG files")
    parser.add_argument("--images", type=Path, default=DEMO / "valid" / "JPEGImages", help="default: %(default)s")
    parser.add_argument(
        "--ann_file", type=Path, default=DEMO / "annotations" / "valid.json", help="default: %(default)s"
    )
    parser.add_argument("--video", type=int, default=3, help="id of the video (default: %(default)s)")
    parser.add_argument("--frame", type=int, default=12, help="from 0 (default: %(default)s)")
    parser.add_argument("--min_score", type=float, default=0.2, help="of the tracks shown (default: %(default)s)")
    options = parser.parse_args()
    try:
        if reason := why_missing():
            raise InputError(reason)
        content = Content(options.results, options.images, options.ann_file)
    except InputError as error:
        print(f"viewer_pictures: error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, launch() as browser:
        page = export_page(content, Path(folder, "page"))
        for name, device in PICTURES.items():
            with new_page(browser, **device) as tab:
                tab.goto(f"{page.as_uri()}#video={options.video}&frame={options.frame}")
                tab.wait_for_selector(f"#stage[data-frame='{options.frame}']")
                tab.evaluate(HIDE_LOW_SCORES, options.min_score)
                tab.wait_for_timeout(500)  # until pictures of another size are made
                photograph(tab, path=options.folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
