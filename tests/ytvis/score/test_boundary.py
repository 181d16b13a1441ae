"""Tube-boundary AP, on frames of 30×40 pixels (a diagonal of 50, so boundaries are one pixel wide) and five of them."""

import numpy as np
import pytest
from pycocotools import mask as mask_ops

from ytvis.files import InputError
from ytvis.score import evaluate_results
from ytvis.score.boundary import boundary_mask, boundary_width

HEIGHT, WIDTH = 30, 40


def encode(pixels: np.ndarray) -> dict:
    return {"size": list(pixels.shape), "counts": mask_ops.encode(np.asfortranarray(pixels, np.uint8))["counts"]}


def square(x: int, y: int = 0) -> dict:
    """A square of 4×4 pixels; its boundary region are the 12 outer ones."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[y : y + 4, x : x + 4] = 1
    return encode(pixels)


HERE, SHIFTED = square(10), square(11)  # share 12 of 20 pixels, and 6 of 18 of their boundary regions


def truth(*tracks: list[dict | None], **more) -> dict:
    return {
        "videos": [{"id": 1, "height": HEIGHT, "width": WIDTH, "length": 5}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": number, "video_id": 1, "category_id": 1, "segmentations": masks, "areas": [16] * 5, **more}
            for number, masks in enumerate(tracks, 1)
        ],
    }


def found(masks: list[dict | None], score: float = 0.9) -> dict:
    return {"video_id": 1, "category_id": 1, "score": score, "segmentations": masks}


def both(annotations: dict, results: list[dict], name: str = "AP") -> list[float]:
    """The score by masks, and by boundaries."""
    return [evaluate_results(annotations, results, kind).per_category["thing"][name] for kind in ("segm", "boundary")]


@pytest.mark.parametrize(("size", "width"), [((30, 40), 1), ((10, 10), 1), ((60, 80), 2), ((720, 1280), 29)])
def test_the_width_is_a_fiftieth_of_the_diagonal(size, width):
    assert boundary_width(*size) == width


def test_the_region_is_what_repeated_erosion_takes_away():
    generator = np.random.default_rng(0)
    for size in ((100, 120), (7, 200), (90, 3)):
        pixels = generator.random(size) < 0.999
        eroded = pixels
        for _ in range(boundary_width(*size)):
            padded = np.pad(eroded, 1)  # the outside of the frame is empty
            shifts = [padded[y : y + size[0], x : x + size[1]] for y in range(3) for x in range(3)]
            eroded = np.logical_and.reduce(shifts)
        region = mask_ops.decode(boundary_mask(encode(pixels)))
        np.testing.assert_array_equal(region, pixels & ~eroded)


def test_the_edge_of_the_frame_is_an_edge():
    assert mask_ops.area(boundary_mask(square(0, 0))) == mask_ops.area(boundary_mask(square(10, 10))) == 12


def test_no_mask_and_an_empty_one_have_no_region():
    empty = encode(np.zeros((HEIGHT, WIDTH)))
    assert boundary_mask(None) is None
    assert mask_ops.area(boundary_mask(empty)) == 0


def test_pixels_are_summed_over_the_frames():
    # One frame of five is shifted: 76 of 84 pixels, 54 of 66 of the boundary regions.
    expected = np.mean(np.linspace(0.5, 0.95, 10) <= 76 / 84), np.mean(np.linspace(0.5, 0.95, 10) <= 54 / 66)
    assert expected == (0.9, 0.7)
    assert both(truth([HERE] * 5), [found([HERE] * 4 + [SHIFTED])]) == pytest.approx(expected)


def test_the_smaller_of_both_decides():
    assert both(truth([HERE] * 5), [found([SHIFTED] * 5)], "AP50") == [pytest.approx(1), 0]  # 12/20 and 6/18
    # Another square inside: all of the boundary is right, the inside is not there.
    ring = boundary_mask(HERE)
    assert both(truth([HERE] * 5), [found([ring] * 5)]) == pytest.approx([0.6, 0.6])  # 12/16 and 12/12


def test_a_frame_without_a_mask_counts_its_whole_region():
    # 4 of 5 frames: both IoUs are 4/5.
    assert both(truth([HERE] * 5), [found([HERE] * 4 + [None])]) == pytest.approx([0.7, 0.7])


def test_crowds_are_compared_by_their_masks_alone():
    annotations = truth([HERE] * 5, [square(30)] * 5)
    annotations["annotations"][0]["iscrowd"] = 1
    results = [found([SHIFTED] * 5, 0.9), found([square(30)] * 5, 0.8)]
    assert both(annotations, results, "AP50") == pytest.approx([1, 1])  # the first takes the crowd and is ignored
    annotations["annotations"][0]["iscrowd"] = 0
    assert both(annotations, results, "AP50")[1] == pytest.approx(51 * 0.5 / 101)  # a false track before the right one


def test_refined_masks_are_the_truth():
    annotations = truth([SHIFTED] * 5, segmentations_refined=[HERE] * 5)
    assert both(annotations, [found([HERE] * 5)]) == pytest.approx([0.3, 1])
    assert annotations["annotations"][0]["segmentations"] == [SHIFTED] * 5


def test_refined_masks_that_cannot_be_read_are_named():
    annotations = truth([HERE] * 5, segmentations_refined=[5])
    with pytest.raises(InputError, match="annotation 1: segmentations_refined, frame 0"):
        evaluate_results(annotations, [found([HERE] * 5)], "boundary")


def test_no_predictions_find_nothing():
    assert both(truth([HERE] * 5), []) == [0, 0]
