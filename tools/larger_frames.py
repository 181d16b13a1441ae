"""Enlarges the frames of a folder, for the picture of the README, as those of the drawn set are small.

python -m tools.larger_frames data/ShapesVIS/valid/JPEGImages/valid_00003 results/large --factor 3
"""

from pathlib import Path

import cv2

from ytvis.command_line import Parser


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("frames", type=Path, help="folder of pictures")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--factor", type=float, default=3, help="default: %(default)s")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.frames.iterdir()):
        picture = cv2.imread(str(path))
        larger = cv2.resize(picture, None, fx=options.factor, fy=options.factor, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(options.output / f"{path.stem}.png"), larger)


if __name__ == "__main__":
    main()
