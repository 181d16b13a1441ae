"""Masks as run-length strings, with and without the native kernels: the same numbers, and no bad string let through."""

import numpy as np
import pytest
from pycocotools import mask as mask_ops

from ytvis import masks as rle
from ytvis.files import InputError
from ytvis.masks import Tubes, compress_mask, compress_masks, frame_overlaps, measure_masks

needs_kernels = pytest.mark.skipif(rle._mask_kernels is None, reason="the native kernels are not built")


@pytest.fixture(params=["python", pytest.param("native", marks=needs_kernels)])
def backend(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(rle, "_mask_kernels", None)


def encode(mask) -> dict:
    return mask_ops.encode(np.asfortranarray(mask, dtype=np.uint8))


def as_text(mask: dict) -> dict:
    return {"size": list(mask["size"]), "counts": mask["counts"].decode()}


def random_mask(rng, height, width) -> np.ndarray:
    """Blobs, noise, full and empty masks."""
    kind = rng.integers(5)
    if kind == 0:
        return rng.random((height, width)) < rng.random()
    if kind == 1:
        return np.full((height, width), rng.random() < 0.5)
    mask = np.zeros((height, width), bool)
    top, left = rng.integers(height), rng.integers(width)
    mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
    return mask


# --------------------------------------------------------------------------------------------------------- reading


def test_pixels_of_masks(backend):
    rng = np.random.default_rng(0)
    masks = [random_mask(rng, *rng.integers(1, 40, 2)) for _ in range(300)]
    encoded = [None if i % 7 == 0 else encode(mask) for i, mask in enumerate(masks)]
    encoded = [as_text(mask) if mask and i % 2 else mask for i, mask in enumerate(encoded)]
    areas = measure_masks(encoded)
    assert areas.dtype == np.int64
    assert areas.tolist() == [0 if mask is None else array.sum() for mask, array in zip(encoded, masks, strict=True)]
    assert measure_masks([]).shape == (0,)


def test_long_runs(backend):
    mask = np.zeros((2000, 3000), bool)
    mask[:, 1500:] = True
    assert measure_masks([encode(mask)]).tolist() == [3_000_000]


@pytest.mark.parametrize(
    "counts",
    [
        "",  # no runs at all
        "9",  # 9 of 25 pixels
        "i0P",  # cut off within a number
        "i0 ",  # no counts
        "i0\u00e9",
        "i0p",
        "99999",  # 45 pixels
        "0P",
        "PPPPPPPPP0",  # a number of more than 32 bits
        "9Ni0",  # a negative run
        "5;91O",  # 5, 11, 9, then 1 and then one less than 9: too many
    ],
)
def test_counts_that_are_wrong(backend, counts):
    right = encode(np.ones((5, 5)))
    for form in (counts, counts.encode()):
        wrong = {"size": [5, 5], "counts": form}
        assert measure_masks([right, wrong, None, right]).tolist() == [25, -1, 0, 25]
        with pytest.raises(InputError, match="^here, frame 1: .* whole run-length string that fills its size"):
            compress_masks([right, wrong], 5, 5, "here")


def test_damaged_counts_are_found_alike(monkeypatch):
    if rle._mask_kernels is None:
        pytest.skip("the native kernels are not built")
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(2000):
        mask = encode(random_mask(rng, 12, 9))
        counts = bytearray(mask["counts"])
        counts[rng.integers(len(counts))] = rng.integers(40, 120)
        masks.append({**mask, "counts": bytes(counts[: rng.integers(1, len(counts) + 1)])})
    native = measure_masks(masks)
    monkeypatch.setattr(rle, "_mask_kernels", None)
    np.testing.assert_array_equal(measure_masks(masks), native)
    assert 0 < (native < 0).sum() < len(masks)


@pytest.mark.parametrize("size", [[5, 5.0], ["5", 5], [-5, -5], [2**40, 1], [5, None]])
def test_sizes_that_are_wrong(backend, size):
    with pytest.raises(InputError, match="here.*size"):
        compress_masks([{"size": size, "counts": "i0"}], 5, 5, "here")


def test_masks_in_every_form(backend):
    mask = np.zeros((10, 12), np.uint8)
    mask[2:6, 3:9] = 1
    compressed = encode(mask)
    runs = {"size": [10, 12], "counts": [32, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 34]}
    polygons = [[3, 2, 9, 2, 9, 4, 3, 4], [3, 4, 9, 4, 9, 6, 3, 6]]
    forms = [compressed, as_text(compressed), runs, polygons, None, []]
    masks, areas = compress_masks(forms, 10, 12, "here")
    assert areas.tolist() == [24, 24, 24, 24, 0, 0] and masks[4:] == [None, None]
    assert all((mask_ops.decode(found) == mask).all() for found in masks[:4])
    assert compress_masks((), 10, 12, "here")[0] == []


def test_runs_that_do_not_fill_the_mask(backend):
    assert compress_mask({"size": [5, 5], "counts": [5, 5]}, 5, 5) is not None
    with pytest.raises(InputError, match="here, frame 0"):
        compress_masks([{"size": [5, 5], "counts": [5, 5]}], 5, 5, "here")


# ------------------------------------------------------------------------------------------------- tracks of masks


def pixels(tracks, frames) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union by counting, of two lists of tracks of arrays or None."""
    counts = np.zeros((2, len(tracks[0]), len(tracks[1]), frames))
    for d, first in enumerate(tracks[0]):
        for g, second in enumerate(tracks[1]):
            for t, (a, b) in enumerate(zip(first, second, strict=False)):
                if a is None or b is None:
                    counts[1, d, g, t] = sum(mask.sum() for mask in (a, b) if mask is not None)
                elif a.shape == b.shape:
                    counts[:, d, g, t] = (a & b).sum(), (a | b).sum()
    return counts[0], counts[1]


@pytest.mark.parametrize("seed", range(8))
def test_overlaps_are_those_of_counting(backend, seed):
    rng = np.random.default_rng(seed)
    sizes = [(9, 7), (7, 9), (9, 7)]  # some differ, with as many pixels

    def random_tracks():
        lengths = rng.integers(0, 6, rng.integers(1, 5))
        return [
            [random_mask(rng, *sizes[rng.integers(3)]) if rng.random() < 0.8 else None for _ in range(n)]
            for n in lengths
        ]

    tracks = random_tracks(), random_tracks()
    tubes = [Tubes.of([[None if m is None else encode(m) for m in track] for track in part]) for part in tracks]
    found = frame_overlaps(*tubes)
    frames = min(max(map(len, part)) for part in tracks)
    for values, expected in zip(found, pixels(tracks, frames), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_no_tracks(backend):
    some = Tubes.of([[encode(np.ones((3, 3)))]])
    none = Tubes.of([])
    assert len(none) == 0
    for first, second, shape in ((some, none, (1, 0, 0)), (none, some, (0, 1, 0)), (none, none, (0, 0, 0))):
        assert [values.shape for values in frame_overlaps(first, second)] == [shape, shape]
    assert frame_overlaps(some, Tubes.of([[]]))[1].shape == (1, 1, 0)
    np.testing.assert_array_equal(frame_overlaps(some, Tubes.of([[None]])), [[[[0]]], [[[9]]]])
