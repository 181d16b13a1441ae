import cv2
import numpy as np
import pytest
import torch

from data.clips import SampleKey
from data.config import get_config
from data.crops import CROP_SIDE, GROUND, CropDataset, _cut, collate_crops
from data.dataset import YTVISDataset
from data.synthetic import generate
from utils.structures import CropBatch
from ytvis.files import InputError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    generate(root, train_videos=2, valid_videos=1, seed=3)
    return get_config("STMask_demo_config", {"dataset.root": str(root)})


@pytest.fixture(scope="module")
def dataset(config):
    return YTVISDataset.from_config(config, "train")


@pytest.fixture(scope="module")
def crops(config, dataset):
    return CropDataset.from_config(config, dataset)


def test_a_frame_gives_a_crop_of_each_object_and_one_of_the_ground(dataset, crops):
    assert len(crops) == sum(len(dataset.annotated_frames(video.video_id)) for video in dataset.videos)
    video = dataset.videos[0]
    frame = dataset.annotated_frames(video.video_id)[0]
    batch = crops[SampleKey(0, 5)]
    labels = dataset.frame_annotations(video.video_id, frame).labels.tolist()
    assert batch.labels.tolist() in (labels, [*labels, GROUND])
    assert batch.images.shape == (len(batch.labels), 3, CROP_SIDE, CROP_SIDE)
    assert batch.images.dtype == torch.float32 and batch.images.isfinite().all()


def test_crops_are_a_function_of_the_key_and_leave_the_generators_alone(crops):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = crops[SampleKey(0, 5)]
    assert torch.get_rng_state().equal(before)
    again, other = crops[SampleKey(0, 5)], crops[SampleKey(0, 6)]
    assert first.images.equal(again.images) and first.labels.equal(again.labels)
    assert not torch.equal(first.images[0], other.images[0])


def test_batches_hold_the_crops_of_all_frames_in_order(crops):
    parts = [crops[SampleKey(index, index)] for index in range(3)]
    batch = collate_crops(parts)
    assert isinstance(batch, CropBatch)
    assert batch.labels.tolist() == [label for part in parts for label in part.labels.tolist()]
    assert len(batch) == sum(map(len, parts)) == len(batch.images)


@pytest.mark.parametrize("side", [32.0, 64.0, 128.0])
def test_the_square_is_cut_out_about_its_middle(side):
    frame = np.zeros((200, 300, 3), np.uint8)
    cv2.rectangle(frame, (145, 95), (155, 105), (255, 128, 0), cv2.FILLED)  # about (150, 100)
    crop = _cut(frame, (150.0, 100.0, side))
    weights = crop[..., 0].astype(float)
    rows, columns = np.mgrid[:CROP_SIDE, :CROP_SIDE]
    middle = [(grid * weights).sum() / weights.sum() for grid in (rows, columns)]
    assert middle == pytest.approx([(CROP_SIDE - 1) / 2] * 2, abs=1.0)
    width = (weights > 127).any(axis=0).sum()
    assert width == pytest.approx(11 * CROP_SIDE / side, abs=2)


def test_outside_the_frame_is_black():
    crop = _cut(np.full((40, 40, 3), 200, np.uint8), (0.0, 0.0, 40.0))
    assert crop[0, 0].tolist() == [0, 0, 0] and crop[-1, -1].tolist() == [200, 200, 200]


def test_a_set_without_truth_is_refused(config, dataset, monkeypatch):
    monkeypatch.setattr(type(dataset), "annotated_frames", lambda self, video_id: ())
    with pytest.raises(InputError, match="needs a set with truth"):
        CropDataset.from_config(config, dataset)
