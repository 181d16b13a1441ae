"""Measures the frames per second that the viewer's page shows of 1080p video with 30 tracks, in a headless Chromium.

    python -m tools.viewer_speed [--tracks 30] [--frames 90] [--speed 30]

The first pass loads and decodes every frame, the second plays from memory. Without a GPU the browser draws in software,
which is the slowest case. On a busy machine compare the processor time per frame: 30 frames per second need at most
33 ms of the page's main thread, and 33 ms of the whole browser per free core.
"""

import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.ytvis.viewer.browser import launch, new_page
from ytvis.command_line import Parser
from ytvis.masks import encode_masks
from ytvis.results import write_results
from ytvis.viewer.content import Content
from ytvis.viewer.server import ViewerServer

WIDTH, HEIGHT = 1920, 1080
STARTING_MS = 3000  # a browser is busy for a while after its start
METRICS = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
# Plays once to the end; returns the number of frames shown, and seconds.
PLAY = """async ([frames, speed]) => {
    viewer.speed = speed;
    viewer.switches.loop = false;
    await viewer.seek(0);
    const before = viewer.shownCount;
    const start = performance.now();
    viewer.play();
    while (viewer.frame < frames) await new Promise(requestAnimationFrame);
    viewer.pause();
    return [viewer.shownCount - before, (performance.now() - start) / 1000];
}"""


def write_video(folder: Path, num_tracks: int, num_frames: int) -> tuple[Path, Path]:
    """Noisy JPEG frames with slowly moving ellipses over a tenth of the height; their annotation and results files."""
    generator = np.random.default_rng(0)
    background = cv2.resize(generator.integers(0, 256, (108, 192, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    centres = generator.uniform((0, 0), (WIDTH, HEIGHT), (num_tracks, 2))
    speeds = generator.uniform(-8, 8, (num_tracks, 2))
    axes = generator.integers(50, 180, (num_tracks, 2))
    segmentations: list[list] = [[] for _ in range(num_tracks)]
    names = []
    for frame in range(num_frames):
        names.append(f"video/{frame:05d}.jpg")
        (folder / "video").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / names[-1]), np.roll(background, 4 * frame, axis=1))
        masks = np.zeros((num_tracks, HEIGHT, WIDTH), np.uint8)
        for mask, centre, speed, axis in zip(masks, centres, speeds, axes, strict=True):
            x, y = (centre + frame * speed).astype(int) % (WIDTH, HEIGHT)
            cv2.ellipse(mask, (int(x), int(y)), tuple(map(int, axis)), frame, 0, 360, 1, -1)
        for track, rle in zip(segmentations, encode_masks(masks), strict=True):
            track.append(rle)
    video = {"id": 1, "width": WIDTH, "height": HEIGHT, "length": num_frames, "file_names": names}
    ann_file = folder / "videos.json"
    ann_file.write_text(json.dumps({"videos": [video], "categories": [{"id": 1, "name": "ellipse"}]}), "utf-8")
    entries = [{"video_id": 1, "category_id": 1, "score": 0.9, "segmentations": track} for track in segmentations]
    write_results(entries, folder / "results.json")
    return ann_file, folder / "results.json"


@dataclass(frozen=True)
class Pass:
    """One pass through the video: frames shown per second, and the share of frames that were skipped because of delays.

    The others are milliseconds of processor time per shown frame: of the page's main thread, its scripts, its layout
    and style, and of all processes of the browser.
    """

    fps: float
    left_out: float
    main_ms: float
    script_ms: float
    layout_ms: float
    browser_ms: float

    def __str__(self) -> str:
        return (
            f"{self.fps:.1f} frames/s, {100 * self.left_out:.0f} % left out; processor time of a frame: "
            f"main thread {self.main_ms:.1f} ms (scripts {self.script_ms:.1f}, layout and style {self.layout_ms:.1f}), "
            f"whole browser {self.browser_ms:.0f} ms"
        )


def measure(browser, url: str, num_frames: int, speed: int) -> Iterator[Pass]:
    """Measures a first and a second pass through the video."""
    with new_page(browser, viewport={"width": 1920, "height": 1080}) as page:
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#stage[data-frame='0']")
        page.wait_for_timeout(STARTING_MS)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for _ in range(2):
            before = processor_seconds(browser, session)
            shown, seconds = page.evaluate(PLAY, [num_frames - 1, speed])
            after = processor_seconds(browser, session)
            main, script, layout, style, all_processes = (
                1000 * (end - start) / shown for start, end in zip(before, after, strict=True)
            )
            yield Pass(shown / seconds, 1 - shown / (num_frames - 1), main, script, layout + style, all_processes)


def processor_seconds(browser, session) -> list[float]:
    """Processor time so far: of the page's main thread, each of `METRICS`; of the browser's processes together."""
    found = session.send("Performance.getMetrics")["metrics"]
    values = {metric["name"]: metric["value"] for metric in found}
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return [*(values[name] for name in METRICS), sum(process["cpuTime"] for process in processes)]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=30)
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--speed", type=int, default=30, help="requested frames per second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ann_file, results = write_video(Path(folder), options.tracks, options.frames)
        with launch() as browser, ViewerServer(Content(results, folder, ann_file), port=0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(f"1080p, {options.tracks} tracks, {options.speed} frames/s requested")
            for number, measured in enumerate(measure(browser, server.url, options.frames, options.speed), start=1):
                print(f"pass {number}: {measured}", flush=True)
            server.shutdown()


if __name__ == "__main__":
    main()
