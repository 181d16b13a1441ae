"""Clips of annotated frames for training; their order and random augmentations depend only on a seed.

    clips = ClipDataset.from_config(cfg, YTVISDataset.from_config(cfg, "train"))
    sampler = ClipSampler(len(clips), batch_size=8, seed=0)
    for batch in make_clip_loader(clips, sampler, num_workers=2, pin_memory=True):      # endless `ClipBatch`es

A `ClipDataset` turns a `SampleKey` into a `Clip`, always the same one; a `ClipSampler` gives the keys of each
iteration's batch. A resumed run, or one with another number of workers or ranks, therefore trains on the same batches.
"""

import bisect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.config import Config
from data.dataset import YTVISDataset, init_worker
from data.transforms import AffineViews, ClipTransform
from utils.structures import Clip, ClipBatch, ClipTargets, FrameAnnotations, TensorFields
from ytvis.annotations import Video, frame_path
from ytvis.files import InputError
from ytvis.pictures import read_picture

logger = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """The key of a clip: the `index` of its key frame in a `ClipDataset`, the `seed` of its random draws, and the
    `batch_seed` of the draws that all clips of a batch share."""

    index: int
    seed: int
    batch_seed: int = 0


class _KeyFrame(NamedTuple):
    """The frame `frames[position]` of a video whose annotated frames are `frames`."""

    video: Video
    frames: tuple[int, ...]
    position: int


class ClipDataset(Dataset[Clip]):
    """Clips of `clip_length` frames around every key frame; its length is the number of key frames.

    Key frames are the frames with at least one valid annotation (see `YTVISDataset.frame_annotations`). In a set of
    static images (`dataset.is_static`) that is an image, and a clip shows it in every frame.
    """

    def __init__(
        self,
        dataset: YTVISDataset,
        transforms: Sequence[ClipTransform],
        clip_length: int = 2,
        max_distance: int = 2,
        views: AffineViews | None = None,
        as_pictures: bool = False,
    ):
        """Draws a clip's other frames from the `max_distance` annotated frames before and after its key frame.

        All clips of a batch go through the same one of `transforms`, which may be of different sizes.
        Each frame of a static image is a different view made by `views`; with None all are the unchanged image.
        With `as_pictures` clips have pictures, which become network input on its device (`ClipTransform.for_network`).

        Raises:
            InputError: no frame has a valid annotation.
        """
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.clip_length = clip_length
        self.max_distance = max_distance
        self.views = views
        self.as_pictures = as_pictures
        self._key_frames: list[_KeyFrame] = []
        for video, frames in dataset.key_frames():
            self._key_frames += [_KeyFrame(video, frames, position) for position in range(len(frames))]
        if not dataset.is_static and clip_length > max(2, 1 + 2 * max_distance):
            logger.warning(
                "clips of train.clip_frames=%d frames repeat their key frame, as train.max_frame_distance=%d allows "
                "only %d others",
                *(clip_length, max_distance, 2 * max_distance),
            )
        num_frames = sum(len(video) for video in dataset.videos)
        logger.info("%s: %d key frames of %d frames", dataset.ann_file, len(self._key_frames), num_frames)

    @classmethod
    def from_config(cls, cfg: Config, dataset: YTVISDataset, as_pictures: bool = False) -> Self:
        """The clips of `dataset` with the augmentations of `cfg.train`.

        Raises:
            InputError: no frame has a valid annotation.
        """
        return cls(
            dataset,
            [ClipTransform.from_config(cfg, size_hw) for size_hw in cfg.train.scales or (cfg.input.size_hw,)],
            clip_length=cfg.train.clip_frames,
            max_distance=cfg.train.max_frame_distance,
            views=AffineViews.from_config(cfg),
            as_pictures=as_pictures,
        )

    def __len__(self) -> int:
        return len(self._key_frames)

    def __getitem__(self, key: SampleKey) -> Clip:
        """Returns the clip of a key, frames in time order, drawn from the key alone; torch's generators are unchanged.

        With too few annotated frames near it, the key frame is repeated. `instance_ids` are the annotations' ids. A
        segmentation that cannot be used is logged and left out; targets may be empty.

        Raises:
            IndexError: the index is out of range.
            InputError: a frame's file cannot be used.
        """
        key_frame = self._key_frames[key.index]
        transform = self.transforms[key.batch_seed % len(self.transforms)]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)  # `torch.manual_seed` would also seed the accelerator
            frames = self._annotated_frames(key_frame)
            samples, colours = transform.for_network(frames) if self.as_pictures else (transform(frames), None)
        images, targets = zip(*samples, strict=True)
        return Clip(torch.stack(images), targets, colours=colours)

    def _annotated_frames(self, key_frame: _KeyFrame) -> list[tuple[np.ndarray, FrameAnnotations]]:
        """Returns the frames of a clip with their truth, before they become network input."""
        if not self.dataset.is_static:
            return [self._load(key_frame.video, frame_index) for frame_index in self._draw_frames(key_frame)]
        image = self._load(key_frame.video, frame_index=0)
        return [self.views(*image) if self.views else image for _ in range(self.clip_length)]

    def _draw_frames(self, key_frame: _KeyFrame) -> list[int]:
        """Indices of `clip_length` frames, ascending; drawn without replacement as long as there are enough."""
        frames, position = key_frame.frames, key_frame.position
        near = frames[max(0, position - self.max_distance) : position]
        near += frames[position + 1 : position + 1 + self.max_distance]
        others = [near[choice] for choice in torch.randperm(len(near))[: self.clip_length - 1].tolist()]
        return sorted(others + [frames[position]] * (self.clip_length - len(others)))

    def _load(self, video: Video, frame_index: int) -> tuple[np.ndarray, FrameAnnotations]:
        frame = read_picture(
            frame_path(self.dataset.image_root, video.file_names[frame_index]), (video.height, video.width)
        )
        return frame, self.dataset.frame_annotations(video.video_id, frame_index, skip_unusable=True)


class SampleOrder:
    """The endless sequence of the samples of one data set, or of several that are joined one after another.

    Each set's own samples are its items epoch after epoch, each epoch a new shuffle. The sets take turns so that at any
    point of the sequence each has had its share, up to a sample or two. A sample is a function of its number alone.
    """

    def __init__(self, sizes: Sequence[int], seed: int, weights: Sequence[float] | None = None):
        """`sizes` are the numbers of items of the sets; `weights` are proportional to the sets' shares (default: the
        sizes).

        Raises:
            ValueError: a number is out of its range.
        """
        exact = [Fraction(weight) for weight in (weights or sizes)]
        if not sizes or min(sizes) < 1 or min(exact) <= 0 or len(exact) != len(sizes) or seed < 0:
            raise ValueError(f"{sizes=} and {weights=} must be over 0 and equally many, {seed=} at least 0")
        self.sizes = tuple(sizes)
        self.shares = [float(weight / sum(exact)) for weight in exact]
        self._seed = seed
        self._starts = [0, *accumulate(sizes)]
        self._of_rest = [weight / sum(exact[number:]) for number, weight in enumerate(exact)]
        self._shuffled: list[tuple[int, list[int]]] = [(-1, []) for _ in sizes]  # (epoch, its order) of each set

    def index(self, sample: int) -> int:
        """The item of a sample, counted through all sets."""
        number, place = self._place(sample)
        size = self.sizes[number]
        epoch, order = self._shuffled[number]
        if place // size != epoch:
            epoch = place // size
            # The first set has the order that it has alone: numpy pads seeds with zeros.
            order = np.random.default_rng((self._seed, epoch, number)).permutation(size).tolist()
            self._shuffled[number] = epoch, order
        return self._starts[number] + order[place % size]

    def _place(self, sample: int) -> tuple[int, int]:
        """(the set that a sample is of, the number of samples of that set before it).

        The first set gets its share of all samples, evenly spread, the second its share of those left over, and so on.
        """
        last = len(self.sizes) - 1
        for number, share in enumerate(self._of_rest[:last]):
            before = math.ceil(share * sample)
            if math.ceil(share * (sample + 1)) > before:
                return number, before
            sample -= before
        return last, sample


class ClipSampler(Sampler[list[SampleKey]]):
    """A batch sampler: the keys of iteration `start_iteration`, `start_iteration` + 1, …, up to `num_iterations`.

    All samples form one sequence, a `SampleOrder`. Iteration k takes samples k·batch_size … of it, across the end of an
    epoch, so its batch is a function of (seed, k).
    """

    def __init__(
        self,
        num_items: int | Sequence[int],
        batch_size: int,
        seed: int,
        start_iteration: int = 0,
        num_iterations: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[float] | None = None,
    ):
        """`num_items` are those of the data set, or of each of several that are joined; `weights` are proportional to
        the share of each in the samples (default: the numbers of items).

        `num_iterations` is where the run ends, counted from 0 (None: never). `batch_size` is that of all ranks
        together; this rank gets samples `rank`, `rank` + `world_size`, … of each batch.

        Raises:
            ValueError: a number is out of its range, or `batch_size` is not a multiple of `world_size`.
        """
        if batch_size < 1 or start_iteration < 0:
            raise ValueError(f"{batch_size=} must be over 0, {start_iteration=} at least 0")
        if not 0 <= rank < world_size:
            raise ValueError(f"{rank=} must be one of 0…{world_size - 1}")
        if batch_size % world_size:
            raise ValueError(f"a batch of {batch_size} clips cannot be shared by {world_size} processes")
        sizes = [num_items] if isinstance(num_items, int) else num_items
        self.order = SampleOrder(sizes, seed, weights)
        self.batch_size = batch_size
        self.seed = seed
        self.start_iteration = start_iteration
        self.num_iterations = num_iterations
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """The number of remaining batches; TypeError without `num_iterations`."""
        if self.num_iterations is None:
            raise TypeError("an endless ClipSampler has no length")
        return max(0, self.num_iterations - self.start_iteration)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        iteration = self.start_iteration
        while self.num_iterations is None or iteration < self.num_iterations:
            batch = []
            first = iteration * self.batch_size
            batch_seed = _seed_of(self.seed, iteration, 1)
            for sample in range(first + self.rank, first + self.batch_size, self.world_size):
                batch.append(SampleKey(self.order.index(sample), _seed_of(self.seed, sample), batch_seed))
            yield batch
            iteration += 1


def _seed_of(*numbers: int) -> int:
    """A number below 2^63 that practically never equals that of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


class JoinedSamples(Dataset):
    """The samples of several data sets one after another, such as `ClipDataset`s; keys are those of a `ClipSampler` of
    their lengths. A sample knows which classes its set labels (`Clip.known`)."""

    def __init__(self, parts: Sequence[Dataset], known: Tensor | None = None):
        """`known` [parts,C+1] bool as in `Clip`; None: all sets label all classes."""
        self.parts = tuple(parts)
        self.known = known
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: SampleKey) -> TensorFields:
        """Returns the sample of a key; raises what its data set raises."""
        part = bisect.bisect_right(self._ends, key.index)
        if part == len(self.parts):
            raise IndexError(f"sample {key.index} of {len(self)}")
        sample = self.parts[part][key._replace(index=key.index - self._ends[part] + len(self.parts[part]))]
        return sample.of_part(part, len(self.parts), None if self.known is None else self.known[part])


def collate_clips(clips: list[Clip]) -> ClipBatch:
    """Returns the clips, at least one, all of one size and all with or without `known`, as a batch."""
    known = [clip.known for clip in clips if clip.known is not None]
    colours = tuple(clip.colours for clip in clips)
    return ClipBatch(
        torch.stack([clip.frames for clip in clips]),
        ClipTargets.pack([clip.targets for clip in clips]),
        torch.stack(known) if known else None,
        colours if any(change is not None for change in colours) else None,
    )


def make_clip_loader(
    clips: Dataset, sampler: ClipSampler, num_workers: int, pin_memory: bool, collate: Callable = collate_clips
) -> DataLoader:
    """Returns an iterable of the batches of `sampler`: items of a `ClipDataset`, or another data set with `SampleKey`s
    for keys, combined by `collate` and prepared ahead by `num_workers` processes (0: in the calling process).

    The processes live for one pass, so with an endless sampler they are kept. Torch's generators are not drawn from.
    `pin_memory` puts the batches into pinned memory. Iterating raises InputError if a frame's file cannot be used.
    """
    return _ClipLoader(
        _ClipsOrErrors(clips),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=partial(_collate, collate),
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        generator=torch.Generator(),  # otherwise every pass takes a number from torch's global generator
    )


class _ClipsOrErrors(Dataset):
    """Returns clips, or InputErrors in their place: one raised in a worker would arrive as the text of a traceback."""

    def __init__(self, clips: Dataset):
        self.clips = clips

    def __getitem__(self, key: SampleKey) -> TensorFields | InputError:
        try:
            return self.clips[key]
        except InputError as error:
            return error


def _collate(collate: Callable, items: list) -> TensorFields | InputError:
    """Returns the batch of `items`, or the first InputError among them."""
    error = next((item for item in items if isinstance(item, InputError)), None)
    return collate(items) if error is None else error


class _ClipLoader(DataLoader):
    def __iter__(self) -> Iterator[TensorFields]:
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch
