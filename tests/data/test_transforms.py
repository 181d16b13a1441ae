import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.config import get_config
from data.transforms import AffineViews, ClipTransform, ColourChange, FrameTransform, PictureInput, change_colours
from utils.structures import FrameAnnotations

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"
CFG = get_config("STMask_plus_resnet50_config")


def test_image_equals_the_recorded_one_exactly():
    recorded = np.load(REFERENCE / "unit" / "transforms.npz")
    transform = FrameTransform((36, 64), CFG.input.mean, CFG.input.std, 64)
    image, resized_hw, padded_hw = transform(recorded["img_bgr"][:, :, ::-1])
    assert resized_hw == (36, 64) and padded_hw == (64, 64)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), recorded["flip0_img"])


def test_test_item_of_the_recorded_data_set_is_equal_exactly():
    picture = cv2.imread(str(REFERENCE / "dataset_eval" / "JPEGImages" / "vid3" / "00010.jpg"))
    cfg = get_config("STMask_plus_resnet50_config", {"input.size_hw": (90, 160)})
    image, resized_hw, padded_hw = FrameTransform.from_config(cfg)(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    assert resized_hw == (90, 160) and padded_hw == (96, 160)
    np.testing.assert_array_equal(image.numpy(), np.load(REFERENCE / "dataset_eval" / "test_item2.npz")["img"])


def test_one_colour_by_hand():
    transform = FrameTransform((2, 3), mean=(10, 20, 30), std=(2, 4, 5), size_divisor=4)
    image, _, _ = transform(np.full((7, 5, 3), (12, 28, 20), np.uint8))
    assert image.shape == (3, 4, 4)
    inside = image[:, :2, :3]
    assert torch.equal(inside, torch.tensor([1.0, 2.0, -2.0]).view(3, 1, 1).expand(3, 2, 3))
    assert image.abs().sum() == inside.abs().sum()  # zeros below and to the right


def test_published_sizes():
    transform = FrameTransform.from_config(CFG)
    assert transform.size_hw == (360, 640) and transform.padded_hw == (384, 640)


def test_the_frame_stays_as_it_was():
    frame = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    before = frame.copy()
    FrameTransform((2, 3), CFG.input.mean, CFG.input.std, 1)(frame)  # nothing to resize, nothing to pad
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), "u1")]
)
def test_anything_but_an_rgb_frame_is_refused(frame):
    with pytest.raises(ValueError, match="must be"):
        FrameTransform.from_config(CFG)(frame)


# ---------------------------------------------------------------------------------------------------- on the device


@pytest.mark.parametrize("size_hw", [(180, 320), (36, 64), (90, 161), (1, 1)])
@pytest.mark.parametrize("divisor", [1, 32])
def test_pictures_become_the_same_numbers_on_the_device(size_hw, divisor):
    settings = get_config("YOLACT_base_config", {"input.whole_pixels": True, "input.size_divisor": divisor}).input
    transform = FrameTransform(size_hw, settings.mean, settings.std, divisor)
    frames = np.random.default_rng(0).integers(0, 256, (3, 70, 50, 3), np.uint8)
    frames[0, ..., :] = np.arange(256, dtype=np.uint8).repeat(14)[:3500].reshape(70, 50, 1)  # every value
    pictures = torch.stack([transform.for_network(frame) for frame in frames])
    assert pictures.dtype == torch.uint8 and pictures.shape == (3, *size_hw, 3)
    images = PictureInput(settings, torch.device("cpu"))(pictures)
    expected = torch.stack([transform(frame)[0] for frame in frames])
    assert images.dtype == torch.float32 and torch.equal(images, expected)
    assert images.shape == (3, 3, *transform.padded_hw)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["STMask_plus_resnet50_config", "STMask_demo_config"])
def test_a_picture_normalised_on_the_device_is_the_recorded_image_exactly(name):
    recorded = np.load(REFERENCE / "unit" / "transforms.npz")
    config = get_config(name, {"input.size_hw": (36, 64), "input.size_divisor": 64})
    assert (config.input.mean, config.input.std) == (CFG.input.mean, CFG.input.std)
    picture = FrameTransform.from_config(config).for_network(recorded["img_bgr"][:, :, ::-1])
    image = PictureInput(config.input, torch.device("cpu"))(picture[None])[0]
    np.testing.assert_array_equal(image.numpy(), recorded["flip0_img"])


def test_pixels_that_are_not_whole_stay_as_they_are():
    transform = FrameTransform.from_config(get_config("YOLACT_base_config", {"input.size_hw": (20, 30)}))
    frame = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    image = transform.for_network(frame)
    assert image.dtype == torch.float32 and torch.equal(image, transform(frame)[0])


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (8, 8, 3), (1, 1, 8, 8, 3)])
def test_pictures_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="pictures must be"):
        PictureInput(CFG.input, torch.device("cpu"))(torch.zeros(shape, dtype=torch.uint8))


# ---------------------------------------------------------------------------------------------------- clips


SMALL = FrameTransform((36, 64), CFG.input.mean, CFG.input.std, 32)
ALL = {"photometric": True, "zoom_out": True, "crop": True}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the loader's workers; two threads wait for each other more than they save on small images."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def annotations(boxes_px, masks):
    """Objects numbered from 1, of label 10 and up, in the frame's pixels."""
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.bool)
    numbers = torch.arange(1, len(masks) + 1)
    return FrameAnnotations(torch.as_tensor(boxes_px, dtype=torch.float32), numbers + 9, masks, numbers)


def discs(*circles, hw=(180, 320)):
    """A grey frame with discs (centre x, centre y, radius) of their own brightness, and their truth."""
    frame = np.full((*hw, 3), 90, np.uint8)
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    masks = np.array([(columns - x) ** 2 + (rows - y) ** 2 <= r * r for x, y, r in circles]).reshape(-1, *hw)
    for number, mask in enumerate(masks):
        frame[mask] = 160 + 20 * number
    spans = [(np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))) for mask in masks]
    boxes = [(across[0], down[0], across[-1], down[-1]) for across, down in spans]
    return frame, annotations(np.array(boxes, np.float32).reshape(-1, 4), masks)


def of_seed(transform, frames, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(frames)


@pytest.mark.parametrize("flip", [0, 1])
def test_clip_transform_equals_the_recorded_one_exactly(flip):
    recorded = np.load(REFERENCE / "unit" / "transforms.npz")
    frame_transform = FrameTransform((36, 64), CFG.input.mean, CFG.input.std, 64)
    frame = recorded["img_bgr"][:, :, ::-1]
    ((image, targets),) = ClipTransform(frame_transform, flip)(
        [(frame, annotations(recorded["box_xyxy"], recorded["mask"]))]
    )
    np.testing.assert_array_equal(image.numpy(), recorded[f"flip{flip}_img"])
    np.testing.assert_array_equal(targets.boxes.numpy(), recorded[f"flip{flip}_box"])
    np.testing.assert_array_equal(targets.masks.numpy(), recorded[f"flip{flip}_mask"])
    assert targets.labels.tolist() == [10, 11] and targets.instance_ids.tolist() == [1, 2]
    assert targets.masks.dtype == torch.uint8 and targets.boxes.dtype == torch.float32
    assert {type(tensor) for tensor in (image, targets.boxes, targets.masks)} == {torch.Tensor}


def test_with_all_options_off_the_image_is_that_of_the_frame_transform():
    frame, truth = discs((100, 90, 40), hw=(131, 207))
    ((image, _),) = ClipTransform(SMALL, flip_probability=0)([(frame, truth)])
    assert torch.equal(image, SMALL(frame)[0])


def test_flip_by_hand():
    """Eight columns, no resize, no padding: pixels 1…3 become 4…6."""
    frame = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    mask = np.zeros((1, 4, 8))
    mask[0, 1:3, 1:4] = 1
    transform = ClipTransform(FrameTransform((4, 8), (0, 0, 0), (1, 1, 1), 4), flip_probability=1)
    ((image, targets),) = transform([(frame, annotations([[1, 1, 3, 2]], mask))])
    assert targets.boxes.tolist() == [[4 / 8, 1 / 4, 6 / 8, 2 / 4]]
    assert targets.masks[0].nonzero().tolist() == [[1, 4], [1, 5], [1, 6], [2, 4], [2, 5], [2, 6]]
    np.testing.assert_array_equal(image.numpy(), frame[:, ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("options", [{}, {"photometric": True}, {"zoom_out": True}, {"crop": True}, ALL])
def test_boxes_stay_around_their_masks_whatever_is_drawn(options):
    transform = ClipTransform(FrameTransform((180, 320), CFG.input.mean, CFG.input.std, 32), 0.5, **options)
    frames = [discs((80, 60, 30), (230, 110, 50)), discs((90, 70, 30), (220, 100, 50))]
    areas = []
    for seed in range(12):
        for image, targets in of_seed(transform, frames, seed):
            assert image.shape == (3, 192, 320) and targets.masks.shape[1:] == (192, 320)
            assert targets.boxes.min() >= 0 and not targets.masks[:, 180:].any() and targets.masks.max() == 1
            areas += targets.masks.sum((1, 2)).tolist()
            for box, mask in zip(targets.boxes * torch.tensor([320, 192, 320, 192]), targets.masks, strict=True):
                down, across = mask.nonzero().T
                tight = torch.stack([across.min(), down.min(), across.max(), down.max()])
                # In a crop of 0.3 of the side one pixel becomes 3.3, and a mask's last one ends 2.3 after the box.
                torch.testing.assert_close(box, tight.float(), atol=4 if options.get("crop") else 2, rtol=0)
    assert (len(set(areas)) > 8) == ("zoom_out" in options or "crop" in options)


@pytest.mark.parametrize("options", [{"photometric": True}, {"zoom_out": True}, {"crop": True}, ALL])
def test_all_frames_of_a_clip_are_treated_alike(options):
    frame = discs((80, 60, 30), (230, 110, 50))
    transform = ClipTransform(SMALL, 0.5, **options)
    images = []
    for seed in range(8):
        (first, first_targets), (second, second_targets) = of_seed(transform, [frame, frame], seed)
        assert torch.equal(first, second)
        assert torch.equal(first_targets.boxes, second_targets.boxes)
        assert torch.equal(first_targets.masks, second_targets.masks)
        images.append(first)
        again, _ = of_seed(transform, [frame, frame], seed)[0]
        assert torch.equal(first, again)
    assert len({image.numpy().tobytes() for image in images}) > 2


def test_objects_stay_where_their_pixels_are():
    """The mask covers the object's own grey values: zoom, crop and flip treat image, mask and box alike."""
    transform = ClipTransform(FrameTransform((180, 320), (0, 0, 0), (1, 1, 1), 32), 0.5, zoom_out=True, crop=True)
    for seed in range(10):
        for image, targets in of_seed(transform, [discs((80, 60, 30), (230, 110, 50))] * 2, seed):
            for number, mask in zip(targets.instance_ids.tolist(), targets.masks, strict=True):
                assert image[0][mask.bool()].median() == 140 + 20 * number
                assert not (image[0] == 140 + 20 * number)[~mask.bool()].float().mean() > 0.01


def test_zooming_out_surrounds_the_picture_with_the_mean_colour():
    frame, truth = discs((160, 90, 60))
    transform = ClipTransform(SMALL, 0, zoom_out=True)
    zoomed = [of_seed(transform, [(frame, truth)], seed)[0] for seed in range(12)]
    plain = ClipTransform(SMALL, 0)([(frame, truth)])[0][1].masks.sum()
    smaller = [image for image, targets in zoomed if targets.masks.sum() < plain]
    assert 2 <= len(smaller) < 12 and all(targets.masks.sum() <= plain for _, targets in zoomed)
    for image in smaller:  # 124 116 104 is the mean to within half a grey value
        corners = image[:, [0, 0, 35, 35], [0, 63, 0, 63]]
        assert (corners.abs() < 0.5 / 57).all(dim=0).any()


def test_what_the_crop_cuts_away_is_dropped_even_if_that_is_all():
    """The crop is drawn for the first frame, so the second can lose its only object; some draws must do that."""
    frames = [discs((40, 40, 30)), discs((285, 150, 15))]
    transform = ClipTransform(SMALL, 0, crop=True)
    counts = set()
    for seed in range(30):
        (_, first), (image, second) = of_seed(transform, frames, seed)
        counts.add((len(first), len(second)))
        if not len(second):
            assert image.shape == (3, 64, 64) and second.boxes.shape == (0, 4) and second.masks.shape == (0, 64, 64)
            assert second.labels.dtype == second.instance_ids.dtype == torch.int64
    assert counts == {(1, 0), (1, 1)}


@pytest.mark.parametrize("options", [{}, ALL])
def test_a_frame_without_objects_has_empty_targets(options):
    transform = ClipTransform(SMALL, 1, **options)
    for image, targets in transform([discs(), discs((80, 60, 30))][:1] * 2):
        assert image.shape == (3, 64, 64) and len(targets) == 0 and targets.masks.shape == (0, 64, 64)


def test_objects_that_leave_nothing_to_learn_from_are_dropped():
    """A column of one pixel has x1 = x2; a single pixel falls between the nearest ones; a box lies outside; NaN."""
    masks = np.zeros((5, 72, 128))
    masks[0, 10:20, 10] = masks[1, 11, 11] = masks[2:, 8:16, 8:16] = 1
    boxes = [[10, 10, 10, 19], [11, 11, 11.9, 11.9], [-9, 8, -2, 16], [8, 8, float("nan"), 16], [8, 8, 15, 15]]
    ((_, targets),) = ClipTransform(SMALL, 0)([(np.zeros((72, 128, 3), np.uint8), annotations(boxes, masks))])
    assert targets.instance_ids.tolist() == [5] and targets.masks.sum() == 16


@pytest.mark.parametrize("options", [{}, {"photometric": True}, {"zoom_out": True, "photometric": True}, ALL])
def test_pictures_become_the_same_images_on_the_device(options):
    """In both orders of flip and change of colours; the mean that a change of contrast needs is a sum in another order,
    so a pixel may be one grey value off."""
    frames = [discs((80, 60, 30), (230, 110, 50)), discs((90, 70, 30), (220, 100, 50))]
    transform = ClipTransform(FrameTransform((36, 60), CFG.input.mean, CFG.input.std, 32), 0.5, **options)
    to_image = PictureInput(CFG.input, torch.device("cpu"))
    changes = []
    for seed in range(8):
        expected = of_seed(transform, frames, seed)
        samples, colours = of_seed(transform.for_network, frames, seed)
        pictures = torch.stack([picture for picture, _ in samples])
        assert pictures.dtype == torch.uint8 and pictures.shape == (2, 36, 60, 3)
        images = to_image(change_colours(pictures[None], [colours])[0] if colours else pictures)
        steps = (images - torch.stack([image for image, _ in expected])).abs() * 57
        assert steps.max() < 1.1 and (steps > 0.01).float().mean() < 0.01
        for (_, ours), (_, theirs) in zip(samples, expected, strict=True):
            assert torch.equal(ours.masks, theirs.masks) and torch.equal(ours.boxes, theirs.boxes)
        changes.append(colours)
    later = options == {"photometric": True}
    assert [change is not None for change in changes] == [later] * 8 and (not later or len(set(map(str, changes))) == 8)


@pytest.mark.parametrize("seed", range(12))
def test_a_change_of_colours_is_torchvisions(seed):
    pictures = torch.randint(256, (2, 3, 9, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = v2.RandomPhotometricDistort()(tv_tensors.Video(pictures))
        torch.manual_seed(seed)
        change = pickle.loads(pickle.dumps(ColourChange.draw()))
    assert torch.equal(change(pictures), expected)
    clips = torch.stack([pictures, pictures]).movedim(2, -1)
    changed = change_colours(clips, (None, change))
    assert torch.equal(changed[0], clips[0]) and torch.equal(changed[1].movedim(-1, 1), expected)


def test_the_frame_and_its_annotations_stay_as_they_were():
    frame, truth = discs((80, 60, 30))
    before = frame.copy(), truth.boxes_px.clone(), truth.masks.clone()
    for seed in range(4):
        of_seed(ClipTransform(SMALL, 1, **ALL), [(frame, truth)], seed)
    np.testing.assert_array_equal(frame, before[0])
    assert torch.equal(truth.boxes_px, before[1]) and torch.equal(truth.masks, before[2])


def test_a_clip_of_anything_but_rgb_frames_is_refused():
    with pytest.raises(ValueError, match="must be"):
        ClipTransform(SMALL)([(np.zeros((180, 320), np.uint8), discs()[1])])


# ---------------------------------------------------------------------------------------------------- static images


STILL = AffineViews(rotation=0, scale=(1, 1), translation=0, shear=0)
VIEWS = AffineViews(rotation=20, scale=(0.7, 1.4), translation=0.2, shear=10, fill=(1, 2, 3))


def view_of_seed(views, picture, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return views(*picture)


def test_a_view_without_a_change_is_the_image_and_its_boxes_are_those_of_the_masks():
    frame, truth = discs((80, 60, 30), (230, 110, 50))
    loose = annotations(truth.boxes_px + torch.tensor([-5, -5, 5, 5]), truth.masks)
    view, seen = STILL(frame, loose)
    np.testing.assert_array_equal(view, frame)
    assert torch.equal(seen.boxes_px, truth.boxes_px) and torch.equal(seen.masks, truth.masks)
    assert seen.labels.tolist() == [10, 11] and seen.instance_ids.tolist() == [1, 2]


def test_twice_the_size_by_hand():
    """About the centre of 4×8 pixels, columns 3 and 4 of row 1 become columns 2…5 of rows 0 and 1."""
    frame = np.zeros((4, 8, 3), np.uint8)
    mask = np.zeros((1, 4, 8))
    mask[0, 1, 3:5] = 1
    _, seen = AffineViews(0, (2, 2), 0, 0)(frame, annotations([[3, 1, 4, 1]], mask))
    assert seen.masks[0].nonzero().tolist() == [[row, column] for row in (0, 1) for column in (2, 3, 4, 5)]
    assert seen.boxes_px.tolist() == [[2, 0, 5, 1]]


def test_objects_stay_where_their_pixels_are_in_every_view():
    picture = discs((80, 60, 30), (230, 110, 50))
    boxes = set()
    for seed in range(12):
        view, seen = view_of_seed(VIEWS, picture, seed)
        assert view.shape == (180, 320, 3) and view.dtype == np.uint8 and view.flags.c_contiguous
        assert seen.masks.dtype == torch.bool and seen.masks.shape[1:] == (180, 320)
        for number, mask, box in zip(seen.instance_ids.tolist(), seen.masks, seen.boxes_px, strict=True):
            grey = torch.from_numpy(view[..., 0])
            assert grey[mask].median() == 140 + 20 * number
            assert not (grey == 140 + 20 * number)[~mask].float().mean() > 0.01
            down, across = mask.nonzero().T
            assert box.tolist() == [across.min(), down.min(), across.max(), down.max()]
            boxes.add(tuple(box.tolist()))
    assert len(boxes) > 20  # a view of its own for every seed


def test_what_comes_in_from_outside_has_the_fill_colour_and_no_mask():
    frame, truth = np.full((20, 30, 3), 200, np.uint8), annotations([[0, 0, 29, 19]], np.ones((1, 20, 30)))
    view, seen = AffineViews(0, (0.5, 0.5), 0, 0, fill=(1, 2, 3))(frame, truth)
    assert view[0, 0].tolist() == [1, 2, 3] and view[10, 15].tolist() == [200, 200, 200]
    assert seen.masks.sum() == 10 * 15 and not seen.masks[0, 0, 0]


def test_objects_that_leave_the_view_are_dropped_even_if_that_is_all():
    corner = np.zeros((2, 40, 40))
    corner[0, :3, :3] = corner[1, 18:22, 18:22] = 1
    picture = np.zeros((40, 40, 3), np.uint8), annotations([[0, 0, 2, 2], [18, 18, 21, 21]], corner)
    _, seen = AffineViews(0, (2, 2), 0, 0)(*picture)
    assert seen.instance_ids.tolist() == [2] and seen.labels.tolist() == [11]
    _, seen = AffineViews(0, (2, 2), 0, 0)(picture[0], picture[1][:1])
    assert len(seen) == 0 and seen.boxes_px.shape == (0, 4) and seen.masks.shape == (0, 40, 40)


def test_an_image_without_objects_has_views():
    frame, truth = discs()
    view, seen = view_of_seed(VIEWS, (frame, truth), 0)
    assert view.shape == frame.shape and len(seen) == 0 and seen.boxes_px.shape == (0, 4)


def test_the_image_stays_as_it_was():
    frame, truth = discs((80, 60, 30))
    before = frame.copy(), truth.masks.clone()
    view_of_seed(VIEWS, (frame, truth), 0)
    np.testing.assert_array_equal(frame, before[0])
    assert torch.equal(truth.masks, before[1])


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({}, True),
        ({"static_rotation": 30.0}, False),
        ({"static_scale": (0.5, 0.9)}, False),
        ({"static_translation": 0.3}, False),
        ({"static_shear": 30.0}, False),
    ],
)
def test_every_key_of_the_config_changes_the_views(change, alike):
    still = {"static_rotation": 0.0, "static_scale": (1.0, 1.0), "static_translation": 0.0, "static_shear": 0.0}
    config = get_config("STMask_demo_config", {f"train.{key}": value for key, value in (still | change).items()})
    frame, truth = discs((80, 60, 30), (230, 110, 50))
    view, _ = view_of_seed(AffineViews.from_config(config), (frame, truth), 0)
    assert np.array_equal(view, frame) == alike


def test_a_view_of_anything_but_an_rgb_frame_is_refused():
    with pytest.raises(ValueError, match="must be"):
        VIEWS(np.zeros((180, 320), np.uint8), discs()[1])
