"""Runs ytvis.masks on random and adversarial masks; on good ones its implementations and pycocotools must agree.

    python -m tools.fuzz_masks --seconds 60
    python -m tools.fuzz_masks --seconds 60 --address_sanitizer     # needs gcc with libasan, and pip for pycocotools

Bad masks must raise InputError (ValueError in functions for checked masks only). Good ones must have the same pixels
with the native kernels, without them, and with pycocotools. With --address_sanitizer the kernels and pycocotools are
built with it in a temporary folder, so that a read or write outside their memory ends the run.
"""

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ytvis.command_line import Parser

ROOT = Path(__file__).parents[1]
SANITIZER = "-fsanitize=address -fno-omit-frame-pointer -g -O1"
NUMBERS = (0, 1, -1, 5, 2**16, 2**16 + 1, 2**24, 2**27, 2**29, 2**31, 2**32, 2**63, 2**64, 10**9, 10**400, 10**5000)
ODD = (None, True, "", "7", 5.0, float("nan"), float("inf"), -1e300, [], {}, b"", (), "\ud800", *NUMBERS)
LARGEST_DECODED = 10**6  # pixels: larger masks are measured, but not decoded for each input


class Fuzzer:
    """Generates inputs from a seed, runs them and counts outcomes; raises AssertionError for a wrong one."""

    def __init__(self, seed: int):
        from ytvis import masks

        self.masks = masks
        self.kernels = masks._mask_kernels
        self.rng = np.random.default_rng(seed)
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        kinds = (self.polygons, self.runs, self.text, self.encoded, self.tracks, self.arrays)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind in kinds:
                kind()

    # ------------------------------------------------------------------------------------------------ inputs

    def choice(self, values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def size(self) -> list:
        """The size of a small frame; sometimes of a very large one, or none."""
        kind = self.rng.integers(8)
        if kind == 0:
            return [self.choice(ODD), self.choice(ODD)]
        if kind == 1:
            height = int(2 ** self.rng.uniform(0, 16.1))
            return [height, int(2 ** self.rng.uniform(0, 27.1)) // height + 1]
        return [int(side) for side in self.rng.integers(1, 60, 2)]

    def mask(self, size: list[int]) -> np.ndarray:
        mask = self.rng.random(size) < self.rng.random()
        return mask & (self.rng.random((1, size[1])) < self.rng.random()) if self.rng.integers(2) else mask

    def polygons(self) -> None:
        size = self.size()
        far = self.choice((1.2, 3, 25, 1e9))
        side = max(size) if all(type(value) is int and 0 < value < 2**17 for value in size) else 50
        polygons = [
            (self.rng.uniform(-far, far, 2 * self.rng.integers(0, 9)) * side).round(self.rng.integers(0, 4)).tolist()
            for _ in range(self.rng.integers(1, 4))
        ]
        if self.rng.integers(4) == 0 and polygons[0]:
            polygons[0][self.rng.integers(len(polygons[0]))] = self.choice(ODD)
        rle = self.attempt(self.masks.to_rle, polygons, *size)
        if rle is not None:
            from pycocotools import mask as library

            drawn = [polygon for polygon in polygons if len(polygon) >= 6]
            if size[0] * size[1] < 2**24 and far < 30 and side < 5000:  # the library walks along every pixel of an edge
                expected = library.merge(library.frPyObjects(drawn, *size))["counts"].decode()
                assert rle["counts"] == expected, (polygons, size)
                drawn = [self.masks._draw(np.array(polygon).reshape(-1, 2), *size) for polygon in drawn]
                ours = self.masks._toggles_to_rle(self.masks._combine(drawn, 1), *size)["counts"].decode()
                assert ours == expected, (polygons, size)
            self.use(rle)

    def runs(self) -> None:
        size, runs = self.size(), self.rng.integers(0, 40, self.rng.integers(0, 9)).tolist()
        if all(type(value) is int for value in size) and self.rng.integers(4):
            runs.append(size[0] * size[1] - sum(runs))
        if self.rng.integers(4) == 0 and runs:
            runs[self.rng.integers(len(runs))] = self.choice(ODD)
        rle = self.attempt(self.masks.check_rle, {"size": size, "counts": runs})
        with self.without_kernels():
            assert self.attempt(self.masks.check_rle, {"size": size, "counts": runs}) == rle, (size, runs)
        if rle is not None:
            self.use(rle)

    def text(self) -> None:
        """Counts of random characters, or those of a mask with some replaced, cut off or added."""
        size = self.size()
        if self.rng.integers(2):
            counts = bytes(self.rng.integers(0, 256, self.rng.integers(0, 20)).astype(np.uint8))
        else:
            small = [int(side) for side in self.rng.integers(1, 30, 2)]
            size = small if self.rng.integers(4) else size
            counts = bytearray(self.masks.encode_mask(self.mask(small))["counts"].encode())
            for _ in range(self.rng.integers(0, 3)):
                counts[self.rng.integers(len(counts))] = self.choice((*range(46, 114), 0, 255))
            counts = bytes(counts[: self.rng.integers(1, len(counts) + 1)]) * self.choice((1, 1, 1, 2))
            if self.rng.integers(4) == 0:  # a number in more characters than it needs
                counts = counts[:-1] + bytes([counts[-1] | 32]) * int(self.rng.integers(1, 8)) + b"0"
        form = counts if self.rng.integers(2) else counts.decode("latin-1")
        rle = {"size": size, "counts": self.choice(ODD) if self.rng.integers(16) == 0 else form}
        checked = self.attempt(self.masks.check_rle, rle)
        area = int(self.masks.measure_masks([rle])[0])
        if not isinstance(rle["counts"], list):
            assert (area < 0) == (checked is None), rle
        if area < 0:
            for function in (self.masks.mask_area, lambda mask: self.masks.mask_boxes([mask])):
                try:
                    function(rle)
                except ValueError:
                    continue
                raise AssertionError(f"{rle} is accepted")
        else:
            self.use(rle)

    def encoded(self) -> None:
        mask = self.mask([int(side) for side in self.rng.integers(1, 60, 2)])
        rle = self.masks.encode_mask(mask)
        np.testing.assert_array_equal(self.masks.decode_mask(rle), mask)
        self.use(rle)

    def tracks(self) -> None:
        """Compares tracks of masks of a few sizes with each other, with the kernels and without them."""
        sizes = [[int(side) for side in self.rng.integers(1, 20, 2)] for _ in range(2)]

        def track() -> list:
            length = self.rng.integers(0, 5)
            return [
                self.masks.encode_mask(self.mask(self.choice(sizes))) if self.rng.integers(4) else None
                for _ in range(length)
            ]

        pair = [[track() for _ in range(self.rng.integers(0, 4))] for _ in range(2)]
        found = [self.masks.frame_overlaps(*map(self.masks.Tubes.of, pair))]
        with self.without_kernels():
            found.append(self.masks.frame_overlaps(*map(self.masks.Tubes.of, pair)))
        for values, others in zip(*found, strict=True):
            np.testing.assert_array_equal(values, others)
        self.counts["good"] += 1

    def arrays(self) -> None:
        """Runs the kernels directly, on arrays that seldom fit together."""
        if self.kernels is None:
            return

        def numbers(length: int, kind: type, most: int) -> np.ndarray:
            return np.sort(self.rng.integers(-1 if kind is np.int64 else 0, most, max(0, length)).astype(kind))

        def tubes() -> tuple:
            n = int(self.rng.integers(0, 5))
            lengths = [n + int(self.rng.integers(0, 3)) for _ in range(5)]
            kinds = (np.int64, np.int64, np.int64, np.uint32, np.int64)
            return tuple(numbers(length, kind, n + 2) for length, kind in zip(lengths, kinds, strict=True))

        runs = [self.choice((*ODD, *range(40))) for _ in range(self.rng.integers(0, 9))]
        self.kernels.compress_runs(runs, int(self.choice((-1, 0, 7, 2**27, 2**29, 2**62))))
        shape = self.rng.integers(0, 4, 3)
        shapes = self.rng.integers(0, 4, 9)
        match = [
            (self.rng.random(shapes[:2]), shapes[1]),
            (np.zeros(self.choice((shapes[1], shapes[2])), np.uint8), 0),
            (np.zeros((shapes[3], self.choice((shapes[1], shapes[4]))), np.uint8), 0),
            (self.rng.random(shapes[5]), 0),
            (np.zeros((self.choice(shapes[3:5]), self.choice(shapes[5:7]), self.choice(shapes[:3])), np.int64), 0),
        ]
        for function, arguments in (
            (self.kernels.measure_overlaps, (tubes(), tubes(), np.zeros(shape), np.zeros(shape))),
            (self.kernels.match, [array for array, _ in match]),
        ):
            try:
                function(*arguments)
                self.counts["good"] += 1
            except ValueError:
                self.counts["refused"] += 1

    # ------------------------------------------------------------------------------------------------ outcomes

    @contextmanager
    def without_kernels(self) -> Iterator[None]:
        """A context in which `ytvis.masks` runs without compiled kernels."""
        self.masks._mask_kernels = None
        try:
            yield
        finally:
            self.masks._mask_kernels = self.kernels

    def attempt(self, function: Any, *arguments: Any) -> Any:
        """The result of `function`, None if it raises InputError."""
        from ytvis.files import InputError

        try:
            result = function(*arguments)
        except InputError as error:
            assert len(str(error)) < 400 and "\n" not in str(error), error
            self.counts["refused"] += 1
            return None
        self.counts["good"] += 1
        return result

    def use(self, rle: dict) -> None:
        """Compares every operation on a good mask with pycocotools where calling that is safe."""
        from pycocotools import mask as library

        masks = self.masks
        checked = masks.check_rle(rle)
        with self.without_kernels():
            area = int(masks.measure_masks([checked])[0])
        assert area == masks.mask_area(checked) == int(library.area(checked)), rle
        box = masks.mask_boxes([checked, None])
        assert box[0].tolist() == library.toBbox(checked).tolist() and not box[1].any(), rle
        assert masks.mask_ious([checked], [checked], [False]).item() == float(area > 0), rle
        assert masks.mask_area(masks.unite_masks([checked, checked])) == area, rle
        if np.prod(checked["size"]) <= LARGEST_DECODED:
            decoded = masks.decode_mask(rle)
            assert decoded.sum() == area, rle
            encoded = masks.encode_mask(decoded)
            assert masks.mask_area(encoded) == area, rle
            with self.without_kernels():
                assert masks.encode_mask(decoded) == encoded, rle


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="duration of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs (default: %(default)s)")
    parser.add_argument("--address_sanitizer", action="store_true", help="build and run under AddressSanitizer")
    parser.add_argument("--kernels", type=Path, help=argparse.SUPPRESS)  # the file of the native kernels to load
    options = parser.parse_args()
    if options.address_sanitizer:
        return run_sanitized(options.seconds, options.seed)
    if options.kernels is not None:
        load_kernels(options.kernels)
    fuzzer = Fuzzer(options.seed)
    fuzzer.run(options.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    way = "without native kernels" if fuzzer.kernels is None else f"kernels {fuzzer.kernels.__file__}"
    print(f"{dict(fuzzer.counts)}, all ended correctly; {way}; peak memory {peak:.0f} MiB")
    return 0


def load_kernels(path: Path) -> None:
    """Loads an extension module from a file as `ytvis._mask_kernels`."""
    import ytvis

    spec = importlib.util.spec_from_file_location("ytvis._mask_kernels", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = ytvis._mask_kernels = module
    spec.loader.exec_module(module)


def run_sanitized(seconds: float, seed: int) -> int:
    """Builds the kernels and pycocotools with AddressSanitizer in a temporary folder and runs this tool with them."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True, check=True)
    flags = {"CFLAGS": SANITIZER, "LDFLAGS": "-fsanitize=address"}
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "setup.py", "build_ext", f"--build-lib={folder}", f"--build-temp={folder}/temp"]
        subprocess.run(
            [*build, "--force"], check=True, cwd=ROOT, env={**os.environ, **flags}, stdout=subprocess.DEVNULL
        )
        kernels = Path(folder, "ytvis", "_mask_kernels" + sysconfig.get_config_var("EXT_SUFFIX"))
        package = f"pycocotools=={version('pycocotools')}"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-binary=pycocotools"]
        install += ["--no-cache-dir", f"--target={folder}/library"]
        subprocess.run([*install, package], check=True, env={**os.environ, **flags})
        environment = {
            **os.environ,
            "LD_PRELOAD": library.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": os.pathsep.join((f"{folder}/library", str(ROOT))),
        }
        command = [sys.executable, "-m", "tools.fuzz_masks", f"--seconds={seconds}", f"--seed={seed}"]
        return subprocess.run([*command, f"--kernels={kernels}"], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
