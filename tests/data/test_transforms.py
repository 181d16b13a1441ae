from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.config import get_config
from data.transforms import FrameTransform

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
