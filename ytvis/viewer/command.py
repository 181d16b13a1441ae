"""Show results beside the video, in a web page on this machine or as files.

    python -m ytvis view weights/results.json --images data/ShapesVIS/valid/JPEGImages \\
        --ann_file data/ShapesVIS/annotations/valid.json
    python -m ytvis view ours.json --compare theirs.json --images frames --ann_file valid.json --export page/
    python -m ytvis view results/in.json --images in.mp4

results.json names no pictures: --ann_file does, a YouTube-VIS file of the same data set, with or without annotations;
with them the page also shows the truth, and where the results are wrong. Without --ann_file the results must be of one
video, and --images is the video's file, or a folder of its frames in the natural order of their names (frame2 before
frame10).

Exit codes: 0 done, 2 bad input. The server listens on 127.0.0.1 only; Ctrl+C stops it. From another machine:
ssh -L 8765:127.0.0.1:8765 HOST, then http://127.0.0.1:8765/ there.
"""

import argparse
import logging
import webbrowser

from ytvis.command_line import number_in
from ytvis.viewer.content import Content
from ytvis.viewer.export import export_page
from ytvis.viewer.server import ViewerServer

DEFAULT_PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("results", metavar="RESULTS.json", help="results of eval.py, or of another tool in this format")
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR|VIDEO",
        help="folder of frames, to which the names in --ann_file are relative; or a video file, of one video",
    )
    parser.add_argument("--ann_file", metavar="GT.json", help="YouTube-VIS annotation file of the videos")
    parser.add_argument("--compare", metavar="OTHER.json", help="a second results file, shown beside the first")
    parser.add_argument("--export", metavar="DIR", help="write the page as files into this new folder, and stop")
    parser.add_argument(
        "--port",
        type=number_in(int, 0, 65535),
        default=DEFAULT_PORT,
        metavar="N",
        help="port of the server, 0: any (default: %(default)s)",
    )
    parser.add_argument("--no_browser", action="store_true", help="do not open the page in a browser")


def run(options: argparse.Namespace) -> int:
    """Serves or writes the page; returns the exit code."""
    content = Content(options.results, options.images, options.ann_file, options.compare)
    if options.export is not None:
        print(export_page(content, options.export))
        return 0
    with ViewerServer(content, options.port) as server:
        for handler in logging.getLogger().handlers:
            handler.flush()  # see `log_if_accepted`
        print(f"{server.url} (Ctrl+C stops)", flush=True)
        if not options.no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0
