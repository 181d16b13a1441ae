"""Masks: every form is read, drawn and measured as by pycocotools, and no invalid mask reaches compiled code."""

from array import array

import numpy as np
import pytest
from pycocotools import mask as mask_ops

from ytvis import masks as module
from ytvis.files import InputError
from ytvis.masks import (
    MAX_PIXELS,
    MAX_SIDE,
    Tubes,
    check_rle,
    check_size,
    decode_mask,
    encode_mask,
    encode_masks,
    frame_overlaps,
    mask_area,
    mask_boxes,
    mask_ious,
    measure_masks,
    read_track,
    to_rle,
    unite_masks,
)

needs_kernels = pytest.mark.skipif(module._mask_kernels is None, reason="the native kernels are not built")


@pytest.fixture(params=["python", pytest.param("native", marks=needs_kernels)])
def backend(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(module, "_mask_kernels", None)


def encode(mask) -> dict:
    """The RLE of pycocotools, counts as bytes."""
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


WRONG_COUNTS = [
    "",  # no runs at all
    "9",  # 9 of 25 pixels
    "i0P",  # cut off within a number
    "i0 ",  # no counts
    "i0\u00e9",
    "i0\ud800",  # half of a surrogate pair, as JSON can hold it
    "i0\0",
    "i0p",
    "99999",  # 45 pixels
    "0P",
    "PPPPPPPPP0",  # a number of more than 32 bits
    "iPPPPP0",  # 25, but in seven characters: pycocotools would read something else
    "9Ni0",  # a negative run
    "5;91O",  # 5, 11, 9, then 1 and then one less than 9: too many
    "b'i0'",
]


@pytest.mark.parametrize("counts", WRONG_COUNTS)
def test_counts_that_are_wrong(backend, counts):
    right = encode(np.ones((5, 5)))
    for form in (counts, counts.encode(errors="replace")):
        wrong = {"size": [5, 5], "counts": form}
        assert measure_masks([right, wrong, None, right]).tolist() == [25, -1, 0, 25]
        with pytest.raises(InputError, match="^here, frame 1: .* whole run-length string that fills its size"):
            read_track([right, wrong], 5, 5, "here")
        for function in (check_rle, decode_mask, lambda rle: to_rle(rle, 5, 5)):
            with pytest.raises(InputError, match="whole run-length string that fills its size"):
                function(wrong)
        for function in (mask_area, lambda rle: mask_boxes([rle]), lambda rle: unite_masks([rle])):
            with pytest.raises(ValueError, match="not an RLE, or its runs"):
                function(wrong)
        with pytest.raises(ValueError, match="not an RLE, or its runs"):
            Tubes.of([[right], [wrong]])


def test_counts_in_six_characters_are_read_as_they_are_by_pycocotools(backend):
    padded = {"size": [5, 5], "counts": "iPPPP0"}
    assert measure_masks([padded]).tolist() == [0]
    assert mask_ops.decode(padded).sum() == decode_mask(padded).sum() == 0


def test_damaged_counts_are_found_alike(monkeypatch):
    if module._mask_kernels is None:
        pytest.skip("the native kernels are not built")
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(2000):
        mask = encode(random_mask(rng, 12, 9))
        counts = bytearray(mask["counts"])
        counts[rng.integers(len(counts))] = rng.integers(40, 120)
        masks.append({**mask, "counts": bytes(counts[: rng.integers(1, len(counts) + 1)])})
    native = measure_masks(masks)
    monkeypatch.setattr(module, "_mask_kernels", None)
    np.testing.assert_array_equal(measure_masks(masks), native)
    assert 0 < (native < 0).sum() < len(masks)
    for mask, area in zip(masks, native, strict=True):
        if area >= 0:  # then the library reads the same runs
            assert mask_ops.decode(mask).sum() == area


WRONG_SIZES = [
    [5, 5.0],
    ["5", 5],
    [-5, -5],
    [0, 5],
    [2**40, 1],
    [5, None],
    [True, 25],
    [5],
    [5, 5, 1],
    "55",
    None,
    25,
    {},
    [1, 10**400],
    [1, 10**5000],
    [MAX_SIDE + 1, 1],
    [MAX_SIDE, MAX_PIXELS // MAX_SIDE + 1],
    [float("nan"), 5],
]


@pytest.mark.parametrize("size", WRONG_SIZES, ids=lambda size: "")
def test_sizes_that_are_wrong(backend, size):
    for counts in ("i0", b"i0", [25]):
        with pytest.raises(InputError, match="here, frame 0: .*size") as caught:
            read_track([{"size": size, "counts": counts}], 5, 5, "here")
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    assert measure_masks([{"size": size, "counts": "i0"}]).tolist() == [-1]


WRONG_RUNS = [[], [24], [2, 5, -1], [2, 24, -1], [25.0], [True, 24], ["25"], [25, None], [2**31, 2**31], [10**400]]


@pytest.mark.parametrize("counts", [*WRONG_RUNS, [-(10**5000)], [10**5000]], ids=lambda counts: "")
def test_runs_that_are_wrong(counts):
    rle = {"size": [5, 5], "counts": counts}
    for function in (
        check_rle,
        decode_mask,
        lambda rle: read_track([rle], 5, 5, "here"),
        lambda rle: to_rle(rle, 5, 5),
    ):
        with pytest.raises(InputError, match="the counts of a mask must be") as caught:
            function(rle)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        7,
        "mask",
        True,
        {},
        {"size": [5, 5]},
        {"counts": "i0"},
        {"size": [5, 5], "counts": 7},
        {"size": [5, 5], "counts": None},
    ],
)
def test_what_is_no_mask(backend, value):
    with pytest.raises(InputError, match="^here, frame 1: "):
        read_track([None, value], 5, 5, "here")
    with pytest.raises(InputError):
        to_rle(value, 5, 5)
    assert measure_masks([value]).tolist() == [-1]


def test_the_largest_masks(backend):
    """Runs of many pixels, and of six characters alone, where pycocotools writes a character past its buffer."""
    largest = {"size": [MAX_SIDE, MAX_PIXELS // MAX_SIDE], "counts": [MAX_PIXELS // 2, MAX_PIXELS // 2]}
    rle = check_rle(largest)
    assert measure_masks([rle]).tolist() == [MAX_PIXELS // 2] and len(rle["counts"]) == 12
    assert mask_boxes([rle]).tolist() == [[MAX_PIXELS // MAX_SIDE // 2, 0, MAX_PIXELS // MAX_SIDE // 2, MAX_SIDE]]
    assert frame_overlaps(Tubes.of([[rle]]), Tubes.of([[rle]]))[0].item() == MAX_PIXELS // 2
    far = MAX_PIXELS // MAX_SIDE
    assert (
        to_rle([[0, 0, far // 2, 0, far // 2, MAX_SIDE, 0, MAX_SIDE]], MAX_SIDE, far)["counts"]
        == (check_rle({"size": largest["size"], "counts": [0, MAX_PIXELS // 2, MAX_PIXELS // 2]})["counts"])
    )
    check_size(MAX_SIDE, far)


def test_masks_in_every_form(backend):
    mask = np.zeros((10, 12), np.uint8)
    mask[2:6, 3:9] = 1
    compressed = encode(mask)
    runs = {"size": [10, 12], "counts": [32, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 34]}
    polygons = [[3, 2, 9, 2, 9, 4, 3, 4], [3, 4, 9, 4, 9, 6, 3, 6]]
    arrays = [array("d", polygons[0]), np.array(polygons[1])]
    forms = [compressed, as_text(compressed), runs, polygons, arrays, None, [], [[]]]
    masks, areas = read_track(forms, 10, 12, "here")
    assert areas.tolist() == [24] * 5 + [0] * 3 and masks[5:] == [None] * 3
    assert all((mask_ops.decode(found) == mask).all() for found in masks[:5])
    assert [to_rle(form, 10, 12) for form in forms] == [as_text(compressed)] * 5 + [None] * 3
    assert read_track((), 10, 12, "here")[0] == []


def test_no_list_of_masks():
    for value in (None, {}, "masks", {"size": [5, 5], "counts": "i0"}):
        with pytest.raises(InputError, match="^here: .* one entry per frame"):
            read_track(value, 5, 5, "here")


def test_masks_of_another_size_are_for_scoring_alone():
    rle = {"size": [6, 4], "counts": [24]}
    assert read_track([rle], 4, 6, "here")[1].tolist() == [0]
    with pytest.raises(InputError, match=r"a segmentation is \[6, 4\] \(height, width\), its video \[4, 6\]"):
        to_rle(rle, 4, 6)


# --------------------------------------------------------------------------------------------------------- polygons


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_drawn_as_pycocotools_draws_them(monkeypatch, seed):
    monkeypatch.setattr(module, "LIBRARY_PIXELS", 1 if seed else module.LIBRARY_PIXELS)
    rng = np.random.default_rng(seed)
    for number in range(200):
        height, width = (int(side) for side in rng.integers(1, 70, 2))
        side = max(height, width)
        low, high = (-1.5 * side, 2.5 * side) if number % 4 == 0 else (-3, side + 3)
        polygons = [rng.uniform(low, high, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 4))]
        for polygon in polygons:
            polygon[rng.integers(len(polygon))] = polygon[0]
        polygons = [np.round(polygon, number % 3).ravel().tolist() for polygon in polygons]
        expected = mask_ops.merge(mask_ops.frPyObjects(polygons, height, width))
        assert to_rle(polygons, height, width) == as_text(expected)


def test_a_polygon_of_two_points_covers_nothing_beside_others():
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    assert to_rle([square, [3, 0, 3, 4], []], 4, 6) == to_rle([square], 4, 6)


def test_an_empty_polygon_leaves_an_empty_mask():
    assert not decode_mask(to_rle([[8, 8, 9, 8, 9, 9]], 4, 6)).any()


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([[1, 1, 2, 2]], "no polygon has three points"),
        ([[20.0, 10.0, 30.0, 30.0], []], "no polygon has three points"),
        ([1, 1, 4, 1, 4, 3], "list of x y x y"),
        (["1 1 4 1 4 3"], "nothing but numbers|list of x y"),
        ([[1, 1, 4, 1, 4, 3, 1]], "list of x y x y"),
        ([[[1, 1], [4, 1], [4, 3], [1, 3]]], "only numbers"),
        ([np.ones((4, 2))], "list of x y x y"),
        ([[1, 1, 4, 1, 4, "3"]], "only numbers"),
        ([[1, 1, 4, 1, 4, True]], "only numbers"),
        ([[1, 1, 4, 1, 4, None]], "only numbers"),
        ([np.array(["1", "1", "4", "1", "4", "3"])], "only numbers"),
        ([np.array([1, 1, 4, 1, 4, 3], complex)], "only numbers"),
        ([[1, 1, 4, 1, 4, float("nan")]], "far outside the frame"),
        ([[1, 1, 4, 1, 4, float("-inf")]], "far outside the frame"),
        ([[1, 1, 4, 1, 4, 1e9]], "far outside the frame"),
        ([[1, 1, 4, 1, 4, 10**400]], "far outside the frame"),
        ([[1, 1, 4, 1, 4, -(10**5000)]], "far outside the frame"),
        ([[0, 0, 1, 1, 2, 0], [0, 0, 1, 1, 1e12, 0]], "far outside the frame"),
    ],
)
def test_polygons_that_cannot_be_used(polygons, message):
    with pytest.raises(InputError, match=message):
        to_rle(polygons, 4, 6)
    with pytest.raises(InputError, match=f"^here, frame 1: .*({message})"):
        read_track([None, polygons], 4, 6, "here")


@pytest.mark.parametrize(
    "size",
    [(None, None), (4, None), (0, 6), (10**9, 10**9), (MAX_SIDE + 1, 1), ("4", 6), (4.0, 6), (True, 6), (1, 10**5000)],
)
def test_polygons_in_a_frame_that_is_none(size):
    with pytest.raises(InputError, match="height"):
        to_rle([[1, 1, 4, 1, 4, 3]], *size)
    with pytest.raises(InputError, match="height"):
        check_size(*size)


def test_a_polygon_costs_what_it_covers_of_the_frame(monkeypatch):
    """Not the length of its outline; and what it covers is bounded."""
    far = [[-9 * MAX_SIDE, -9 * MAX_SIDE, 9 * MAX_SIDE, 9 * MAX_SIDE, -9 * MAX_SIDE, 9 * MAX_SIDE]]
    assert mask_area(to_rle(far, MAX_SIDE, 2)) == MAX_SIDE + MAX_SIDE - 1
    zigzag = [[0, 0, 300, 5] * 50]
    monkeypatch.setattr(module, "LIBRARY_PIXELS", 1)
    monkeypatch.setattr(module, "MAX_CROSSINGS", 10_000)
    with pytest.raises(InputError, match="crosses the frame's columns more than 10000 times"):
        to_rle(zigzag, 10, 300)


# ------------------------------------------------------------------------------------------------ encoding and decoding


def test_masks_go_to_rle_and_back():
    masks = np.random.default_rng(0).random((5, 7, 9)) < 0.4
    masks[3], masks[4] = False, True
    rles = encode_masks(masks)
    assert all(rle["size"] == [7, 9] and isinstance(rle["counts"], str) for rle in rles)
    for mask, rle in zip(masks, rles, strict=True):
        decoded = decode_mask(rle)
        assert decoded.dtype == bool
        np.testing.assert_array_equal(decoded, mask)
    assert [encode_mask(mask) for mask in masks] == [encode_mask(mask.astype(np.uint8) * 7) for mask in masks] == rles


@pytest.mark.parametrize("seed", range(40))
def test_masks_are_encoded_in_their_boxes_as_pycocotools_does_whole(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 20, 2)
    masks = rng.random((4, height, width)) < rng.random()
    masks[0, : height // 2] = masks[0, :, width // 2 :] = False
    masks[1, :, : width // 3] = True  # runs that go on in the next column, and a mask that begins with one
    masks[2, :, width // 3 :] = True
    masks[3] &= rng.random((height, 1)) < 0.3
    whole = encode(masks.transpose(1, 2, 0))
    assert [rle["counts"] for rle in encode_masks(masks)] == [r["counts"].decode() for r in whole]


def test_runs_go_down_columns():
    rle = encode_mask(np.array([[0, 1], [0, 1], [1, 0]]))
    assert rle == check_rle({"size": [3, 2], "counts": [2, 3, 1]})


def test_no_masks_give_no_rles():
    assert encode_masks(np.zeros((0, 4, 6), bool)) == []


@pytest.mark.parametrize("counts", [[2, 3, 1], "231", b"231", (2, 3, 1), [np.int64(2), 3, 1]])
def test_counts_may_be_runs_text_or_bytes(counts):
    assert check_rle({"size": [3, 2], "counts": counts}) == {"size": [3, 2], "counts": "231"}
    assert check_rle({"size": np.array([3, 2]), "counts": counts}) == {"size": [3, 2], "counts": "231"}
    assert decode_mask({"size": [3, 2], "counts": counts}).tolist() == [[False, True], [False, True], [True, False]]


@pytest.mark.parametrize("seed", range(5))
def test_runs_are_compressed_as_pycocotools_does(seed, monkeypatch):
    """Also runs of no pixels, and numbers of one to six characters; by the kernels, and without them if it is large."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        runs = (2 ** rng.uniform(0, 22, rng.integers(1, 40))).astype(int) - (rng.random() < 0.3)
        size = [int(runs.sum()), 1]
        if size[0] == 0 or size[0] >= 2**24:
            continue
        expected = mask_ops.frPyObjects({"size": size, "counts": runs.tolist()}, *size)["counts"].decode()
        for kernels in {module._mask_kernels, None}:
            with monkeypatch.context() as context:
                context.setattr(module, "_mask_kernels", kernels)
                context.setattr(module, "LIBRARY_PIXELS", 0)
                assert module._compress(runs, size[0]) == expected.encode()


@needs_kernels
@pytest.mark.parametrize("runs", [[], [2, 3], [2, 5], [7, -1], [-1, 7], [True, 5], [6.0], ["6"], [2**64, 6], [None]])
def test_the_kernel_compresses_only_runs_that_fill_the_mask(runs):
    assert module._mask_kernels.compress_runs([1, 5], 6) == b"15"
    assert module._mask_kernels.compress_runs(runs, 6) is None
    assert module._mask_kernels.compress_runs([2**29], 2**29) is None  # longer than the most characters that are read


def test_long_runs_and_differences_of_runs_decode():
    rng = np.random.default_rng(1)
    mask = np.repeat(np.repeat(rng.random((6, 5)) < 0.5, 37, axis=0), 41, axis=1) ^ (rng.random((222, 205)) < 0.01)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


# --------------------------------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("seed", range(4))
def test_boxes_unions_and_ious_are_those_of_pycocotools(backend, seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        height, width = rng.integers(1, 30, 2)
        masks = [encode(random_mask(rng, height, width)) for _ in range(rng.integers(1, 6))]
        texts = [as_text(mask) for mask in masks]
        assert mask_boxes(texts).tolist() == mask_ops.toBbox(masks).tolist()
        assert [mask_area(text) for text in texts] == mask_ops.area(masks).tolist()
        assert unite_masks(texts) == as_text(mask_ops.merge(masks))
        is_crowd = rng.random(len(masks)) < 0.5
        expected = mask_ops.iou(masks, masks[::-1], is_crowd.astype(np.uint8))
        np.testing.assert_array_equal(mask_ious(texts, texts[::-1], is_crowd), expected)


def test_nothing_to_measure(backend):
    assert mask_boxes([]).shape == (0, 4)
    assert mask_boxes([None] * 300 + [encode(np.ones((2, 3)))]).tolist() == [[0, 0, 0, 0]] * 300 + [[0, 0, 3, 2]]
    one = encode_mask(np.ones((2, 3)))
    assert mask_ious([], [one], [False]).shape == (0, 1) and mask_ious([one], [], []).shape == (1, 0)
    assert mask_ious([one], [encode_mask(np.ones((3, 2)))] * 2, [False, True]).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="one size"):
        unite_masks([one, encode_mask(np.ones((3, 2)))])


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


@needs_kernels
def test_the_kernels_refuse_arrays_that_do_not_fit_together():
    kernels = module._mask_kernels
    tubes = Tubes.of([[encode(np.ones((3, 3)))], [None]])
    good = {name: getattr(tubes, name) for name in ("offsets", "areas", "sizes", "edges", "starts")}
    bad = [
        {"offsets": np.zeros(0, np.int64)},
        {"offsets": np.array([0, 1, 3])},
        {"offsets": np.array([0, 2, 1])},
        {"offsets": np.array([-1, 1, 2])},
        {"starts": np.array([0, 2, 2**40])},
        {"starts": np.array([0, 2])},
        {"areas": np.zeros(1, np.int64)},
        {"edges": np.zeros(0, np.uint32)},
    ]
    shape = (2, 2, 1)
    for change in bad:
        arrays = tuple({**good, **change}.values())
        for pair in ((arrays, tuple(good.values())), (tuple(good.values()), arrays)):
            with pytest.raises(ValueError):
                kernels.measure_overlaps(*pair, np.zeros(shape), np.zeros(shape))
    for shapes in (((2, 2, 1), (2, 2, 2)), ((1, 2, 1), (1, 2, 1)), ((2, 3, 1), (2, 3, 1))):
        with pytest.raises(ValueError):
            kernels.measure_overlaps(*[tuple(good.values())] * 2, *map(np.zeros, shapes))
    for pixels in (0, 2**31):
        with pytest.raises(ValueError):
            kernels.read_masks([], 2**16, pixels)
    arguments = [np.zeros((2, 3)), np.zeros(3, np.uint8), np.zeros((4, 3), np.uint8), np.zeros(5)]
    kernels.match(*arguments, np.zeros((4, 5, 2), np.int64))
    for shape in ((3, 5, 2), (4, 6, 2), (4, 5, 3)):
        with pytest.raises(ValueError):
            kernels.match(*arguments, np.zeros(shape, np.int64))
    arguments[1] = np.zeros(2, np.uint8)
    with pytest.raises(ValueError):
        kernels.match(*arguments, np.zeros((4, 5, 2), np.int64))
