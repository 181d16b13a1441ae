"""Reports how many frames a second the page shows of 1080p video with 30 tracks, in a headless Chromium.

python -m tests.utils.viewer.measure_fps [--tracks 30] [--frames 90] [--speed 30]

The first pass loads and decodes every frame, the second plays what is still in memory. A machine without a GPU draws in
software, which is the slowest case. The processor time of the page's main thread tells of a machine that is busy with
other things: under 33 ms a frame, 30 frames a second are possible.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from data.results import encode_masks, write_results
from tests.utils.viewer.browser import launch, new_page
from utils.viewer.content import Content
from utils.viewer.server import ViewerServer

WIDTH, HEIGHT = 1920, 1080
PLAY = """async ([frames, speed]) => {
    viewer.speed = speed;
    const last = viewer.shownCount + frames;
    const start = performance.now();
    viewer.play();
    while (viewer.shownCount < last) await new Promise(requestAnimationFrame);
    viewer.pause();
    return (1000 * frames) / (performance.now() - start);
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
        for track, rle in zip(segmentations, encode_masks(torch.from_numpy(masks)), strict=True):
            track.append(rle)
    video = {"id": 1, "width": WIDTH, "height": HEIGHT, "length": num_frames, "file_names": names}
    ann_file = folder / "videos.json"
    ann_file.write_text(json.dumps({"videos": [video], "categories": [{"id": 1, "name": "ellipse"}]}), "utf-8")
    entries = [{"video_id": 1, "category_id": 1, "score": 0.9, "segmentations": track} for track in segmentations]
    write_results(entries, folder / "results.json")
    return ann_file, folder / "results.json"


def measure(url: str, num_frames: int, speed: int) -> Iterator[tuple[float, float]]:
    """Frames a second, and main-thread milliseconds a frame, of a first and a second pass through the video."""
    with launch() as browser, new_page(browser, viewport={"width": 1920, "height": 1080}) as page:
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#stage[data-frame='0']")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for _ in range(2):
            before = busy_seconds(session)
            fps = page.evaluate(PLAY, [num_frames - 1, speed])
            yield fps, 1000 * (busy_seconds(session) - before) / (num_frames - 1)


def busy_seconds(session) -> float:
    """Processor time of the page's main thread so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=30)
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--speed", type=int, default=30, help="frames a second asked for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ann_file, results = write_video(Path(folder), options.tracks, options.frames)
        with ViewerServer(Content(results, folder, ann_file), port=0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(f"1080p, {options.tracks} tracks, {options.speed} frames/s asked for")
            for number, (fps, busy) in enumerate(measure(server.url, options.frames, options.speed), start=1):
                print(f"pass {number}: {fps:.1f} frames/s, main thread {busy:.1f} ms a frame", flush=True)
            server.shutdown()
