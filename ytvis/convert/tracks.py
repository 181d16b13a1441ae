"""What every format is read into and written from, and what their modules share.

The module of a format has `read(source, …)` → `AnnotationFile` and, if it can be written,
`write(annotations, target, …)`. Whatever is wrong with a file raises InputError with one line that names it.
"""

import io
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from ytvis.annotations import AnnotationFile, Track, Video
from ytvis.files import InputError, list_folder, make_folder, natural_key
from ytvis.frames import bind_frames, bind_stems, find_pictures, guess_file_names, guess_numbers, name_of_folder
from ytvis.masks import check_size, decode_mask, encode_mask, to_rle, unite_masks
from ytvis.messages import shown
from ytvis.pictures import picture_size, read_labels

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TRACK_KEYS = ("track_id", "instance_id")  # where annotations and their attributes name their object
# Formats that hold only text or numbers write truth so, in whatever case.
_TRUTH = dict.fromkeys(("true", "1", "1.0", "yes"), True) | dict.fromkeys(
    ("false", "0", "0.0", "no", "none", ""), False
)


class TrackCollector:
    """Puts one video and its tracks together from what its frames hold.

    `file_names` are those of its frames: `name_frames` or one of the two `bind_…` gives them.
    """

    def __init__(self, name: str, height: int, width: int, where: str):
        """Begins a video; `where` is its place in messages.

        Raises:
            InputError: no mask is read of frames of this size.
        """
        try:
            check_size(height, width)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        self.name = name
        self.height = height
        self.width = width
        self.file_names: tuple[str, ...] = ()
        self._where = where
        self._parts: dict[Hashable, dict[int, list[list | dict]]] = {}
        self._categories: dict[Hashable, str] = {}
        self._counts: Counter[Hashable] = Counter()
        self._crowd_counts: Counter[Hashable] = Counter()

    def name_frames(self, file_names: Iterable[str]) -> None:
        """Gives the frames their `file_names`; a picture that is several frames is logged."""
        self.file_names = tuple(file_names)
        (picture, count), *_ = Counter(self.file_names).most_common(1)
        if count > 1:
            logger.warning("%s: the picture %s is %d of its frames; name each frame once", self.name, picture, count)

    def bind_numbers(
        self,
        images: Path | None,
        is_only: bool,
        annotated: Collection[int],
        expected: range | None = None,
        order: str | None = None,
        prefix: str = "",
    ) -> dict[int, int]:
        """{number of a frame in the source: its index} of the frames, which get the names of their pictures.

        See `find_pictures` for `images` and `is_only`, `bind_frames` for the others. Without `images` the names are
        guessed to be `prefix` and the number.

        Raises:
            InputError: frames and pictures do not fit, or a picture is of another size.
        """
        if images is None:
            numbers = guess_numbers(annotated, expected, self._where)
            self.name_frames(guess_file_names(self.name, [f"{prefix}{number:06d}" for number in numbers]))
        else:
            folder, pictures = find_pictures(images, self.name, is_only, self._where)
            numbers = bind_frames(pictures, annotated, expected, self._where, order)
            self._name_pictures(images, [folder + picture for picture in numbers.values()])
        return {number: frame_index for frame_index, number in enumerate(numbers)}

    def bind_stems(self, images: Path | None, is_only: bool, stems: Sequence[str]) -> None:
        """Gives the frames the names of the pictures with these names without suffix: see `frames.bind_stems`.

        Raises:
            InputError: a frame has no picture, or two, or one of another size.
        """
        self._name_pictures(images, bind_stems(images, self.name, stems, is_only, self._where))

    def _name_pictures(self, images: Path | None, file_names: Sequence[str]) -> None:
        if images is not None:
            check_sizes(images, file_names, (self.height, self.width), self._where)
        self.name_frames(file_names)

    def add(
        self,
        key: Hashable,
        category: str,
        frame_index: int,
        segmentation: list | dict,
        where: str,
        is_crowd: bool = False,
    ) -> None:
        """Adds a part, polygons or an RLE, of the object `key` in one frame; all its parts there are one mask.

        Raises:
            InputError: the segmentation cannot be used, or the object has another category elsewhere.
        """
        try:
            rle = to_rle(segmentation, self.height, self.width)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        known = self._categories.setdefault(key, category)
        if known != category:
            raise InputError(f"{where}: the object is {category!r} here and {known!r} in an earlier place")
        if rle is not None:
            self._counts[key] += 1
            self._crowd_counts[key] += is_crowd
            self._parts.setdefault(key, {}).setdefault(frame_index, []).append(segmentation)

    @property
    def objects(self) -> Collection[Hashable]:
        """The keys of the objects that are seen."""
        return self._parts.keys()

    @property
    def categories(self) -> set[str]:
        """The categories of the objects that are seen."""
        return {self._categories[key] for key in self._parts}

    def drop(self, key: Hashable) -> None:
        """Forgets an object."""
        del self._parts[key]

    def tracks(self, video_id: int, category_ids: Mapping[str, int]) -> Iterator[Track]:
        """The tracks in the order of their first appearance, in terms of the ids of the video and the categories.

        A track is a crowd if it is one wherever it is seen.
        """
        mixed = [key for key in self._parts if 0 < self._crowd_counts[key] < self._counts[key]]
        if mixed:
            logger.warning(
                "%s: %d tracks are crowds (iscrowd 1) in some frames and objects in others; they are taken for objects",
                self.name,
                len(mixed),
            )
        for key, parts in self._parts.items():
            yield Track(
                video_id,
                category_ids[self._categories[key]],
                tuple(self._union(parts.get(frame_index)) for frame_index in range(len(self.file_names))),
                iscrowd=self._crowd_counts[key] == self._counts[key],
            )

    def _union(self, parts: list[list | dict] | None) -> list | dict | None:
        if parts is None or len(parts) == 1:
            return parts and parts[0]
        if all(isinstance(part, list) for part in parts):
            return [polygon for part in parts for polygon in part]
        return unite_masks([to_rle(part, self.height, self.width) for part in parts])


def collect(
    source: str | os.PathLike, videos: Iterable[TrackCollector], categories: Mapping[int, str] | None = None
) -> AnnotationFile:
    """The data set of `videos`, numbered from 1.

    Its `categories` are by default those that are seen, in natural order, from id 1.
    """
    collectors = tuple(videos)
    if categories is None:
        names = sorted(set().union(*(collector.categories for collector in collectors)), key=natural_key)
        categories = dict(enumerate(names, start=1))
    category_ids = {name: category_id for category_id, name in categories.items()}
    numbered = dict(enumerate(collectors, start=1))
    tracks = (track for video_id, video in numbered.items() for track in video.tracks(video_id, category_ids))
    return AnnotationFile(
        str(source),
        False,
        {key: Video(key, video.width, video.height, video.file_names, video.name) for key, video in numbered.items()},
        categories,
        tuple(tracks),
    )


def videos_to_write(annotations: AnnotationFile) -> list[tuple[str, Video, list[Track]]]:
    """(folder, video, its tracks) of each video; the name of the folder may have slashes, and no two are the same.

    It is the name the source gave, else the folder of the frames, or video_<id> where that is no name.
    """
    videos = annotations.videos.values()
    names = [video.given_name or _name_by_frames(video) for video in videos]
    if len(set(names)) < len(names):
        names = [f"video_{video.video_id}" for video in videos]
    return list(zip(names, videos, annotations.of_video().values(), strict=True))


def _name_by_frames(video: Video) -> str:
    number = f"video_{video.video_id}"
    folder, *others = {str(PurePosixPath(name).parent) for name in video.file_names}
    return number if others else name_of_folder(folder, number)


def category_entries(categories: Mapping[int, str]) -> list[dict[str, Any]]:
    """The categories as annotation files list them."""
    return [{"id": category_id, "name": name} for category_id, name in categories.items()]


def paint_tracks(folder: str, video: Video, tracks: Sequence[Track]) -> Iterator[tuple[int, np.ndarray]]:
    """`paint_frames` of every frame, by its index; a track's number is its place, from 1. Crowds are left out."""

    def seen_in(frame_index: int) -> Iterator[tuple[int, dict]]:
        for number, track in enumerate(tracks, start=1):
            rle = to_rle(track.segmentations[frame_index], video.height, video.width)
            if rle is not None and not track.iscrowd:
                yield number, rle

    indices = progress(range(len(video)), folder)
    return paint_frames(((index, seen_in(index)) for index in indices), video.height, video.width, folder)


def paint_frames(
    frames: Iterable[tuple[int, Iterable[tuple[int, dict]]]], height: int, width: int, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """(frame, [height, width] int32: the number of the object in each pixel, or 0) of each of `frames`, one at a time.

    A frame comes with (number ≥ 1, RLE) of each of its objects; where they overlap, the later one is on top. Logs at
    the end in how many frames of the video `name` that was so.
    """
    overlaps = 0
    for frame, objects in frames:
        canvas = np.zeros((height, width), np.int32)
        overlap = False
        for number, rle in objects:
            mask = decode_mask(rle)
            overlap |= bool(canvas[mask].any())
            canvas[mask] = number
        overlaps += overlap
        yield frame, canvas
    if overlaps:
        logger.warning("%s: objects overlap in %d frames; the later one is kept", name, overlaps)


def part_to_rle(part: np.ndarray, top: int, left: int, size_hw: tuple[int, int]) -> dict | None:
    """The RLE of a mask of `size_hw` that is empty but for `part` [h, w], whose first pixel is at `top`, `left`.

    None if the part does not fit in.
    """
    if min(top, left) < 0 or top + part.shape[0] > size_hw[0] or left + part.shape[1] > size_hw[1]:
        return None
    mask = np.zeros(size_hw, np.uint8)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part > 0
    return encode_mask(mask)


def read_label_pictures(
    name: str, paths: Sequence[Path], identify: Callable[[int, np.dtype, str], tuple[Hashable, str] | None]
) -> TrackCollector:
    """What the pictures of object numbers of a video hold, one per frame; 0 is the ground.

    `identify(number, its type, place)` is (key, category) of an object, None for what is left out.

    Raises:
        InputError: a picture cannot be used, or is not of the size of the first.
    """
    collector = None
    for frame_index, path in enumerate(progress(paths, name)):
        numbers = read_labels(path)
        if collector is None:
            collector = TrackCollector(name, *numbers.shape, str(path.parent))
        if numbers.shape != (collector.height, collector.width):
            raise InputError(f"{path}: is not of the size of {paths[0].name}")
        for number in np.unique(numbers[numbers > 0]).tolist():
            found = identify(number, numbers.dtype, str(path))
            if found is not None:
                collector.add(*found, frame_index, encode_mask(numbers == number), str(path))
    return collector


def encode_png(picture: Image.Image) -> bytes:
    """The PNG file of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def check_sizes(images: Path, file_names: Sequence[str], size_hw: tuple[int, int], where: str) -> None:
    """Looks at the head of every frame, relative to `images`.

    Raises:
        InputError: a picture is missing, or not of the size of the masks; the message begins with `where`.
    """
    for file_name in progress(file_names, "sizes of pictures"):
        height, width = picture_size(images / file_name)
        if (height, width) != tuple(size_hw):
            raise InputError(
                f"{where}: its masks are of {size_hw[1]}×{size_hw[0]}, but {images / file_name} is {width}×{height}"
            )


@contextmanager
def new_folder(target: str | os.PathLike) -> Iterator[Path]:
    """The folder `target`, which must be new or empty, so that no files of two conversions mix.

    If the block ends with an exception, it is new or empty again.

    Raises:
        InputError: something is there, or it cannot be made.
    """
    target = Path(target)
    is_new = not os.path.lexists(target)
    if not is_new and (not os.path.isdir(target) or list_folder(target)):
        raise InputError(f"{target}: is there already; name a new or empty folder")
    make_folder(target)
    try:
        yield target
    except BaseException:
        with suppress(InputError):
            for name in list_folder(target):
                path = target / name
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                target.rmdir()
        raise


def progress(items: Iterable[Item], what: str) -> Iterator[Item]:
    """`items`, with a bar on stderr once they take more than two seconds."""
    return tqdm(items, what, delay=2, leave=False)


def is_set(value: Any, name: str, where: str) -> bool:
    """Whether the value of the attribute `name` is true, be it in words; None is not.

    Raises:
        InputError: it is neither true nor false; the message begins with `where`.
    """
    truth = _TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise InputError(f"{where}: {name} must be true or false, not {shown(value)}")
    return truth


def track_id(attributes: Mapping[str, Any], where: str) -> int | str | None:
    """The object that `attributes` name, None if they do not.

    Raises:
        InputError: it is neither a whole number nor text; the message begins with `where`.
    """
    for key in TRACK_KEYS:
        value = attributes.get(key)
        if value is None:
            continue
        if isinstance(value, str):
            return value
        is_whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
        if is_whole and not isinstance(value, bool):
            return int(value)
        raise InputError(f"{where}: {key} must be a whole number or text, not {shown(value)}")
    return None


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """`entry[key]` of the given type.

    Raises:
        InputError: it is missing or of another type; the message begins with `where`.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "an integer", str: "text", list: "a list", dict: "an object"}
        found = "is missing" if value is None else f"is {shown(value)}"
        raise InputError(f"{where}: {key!r} must be {names[kind]}, but {found}")
    return value
