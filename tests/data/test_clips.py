import itertools
import json
import logging
import multiprocessing
import pickle

import cv2
import numpy as np
import pytest
import torch

from data.clips import ClipDataset, ClipSampler, JoinedSamples, SampleKey, SampleOrder, collate_clips, make_clip_loader
from data.config import get_config
from data.dataset import YTVISDataset
from data.transforms import ClipTransform, FrameTransform
from utils.structures import Clip, ClipBatch, FrameTargets
from ytvis.files import InputError

CFG = get_config("STMask_plus_resnet50_config", {"input.size_hw": (90, 160)})
FRAMES = FrameTransform.from_config(CFG)
HW = (18, 32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the loader's workers; two threads wait for each other more than they save on small images."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded(reference):
    folder = reference / "dataset_eval"
    return YTVISDataset(folder / "instances.json", folder / "JPEGImages", CFG.dataset.class_names)


@pytest.fixture(scope="module")
def clips(recorded):
    return ClipDataset(recorded, [ClipTransform(FRAMES, photometric=True, zoom_out=True, crop=True)])


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def track(annotation_id, video_id, shown, **changes):
    """A rectangle of 8×6 pixels in the frames where `shown` is true; `changes` replace whole entries."""
    entry = {
        "id": annotation_id,
        "video_id": video_id,
        "category_id": 1,
        "iscrowd": 0,
        "segmentations": [rectangle(4, 5, 12, 11) if here else None for here in shown],
        "bboxes": [[4, 5, 8, 6] if here else None for here in shown],
        "areas": [48 if here else None for here in shown],
    }
    return {**entry, **changes}


def draw(folder, lengths, tracks):
    """A data set on disk: video i + 1 has `lengths[i]` frames of the grey value 10·(frame + 1)."""
    videos = []
    for video_id, length in enumerate(lengths, start=1):
        names = [f"{video_id}/{index}.png" for index in range(length)]
        (folder / str(video_id)).mkdir(parents=True)
        for index, name in enumerate(names):
            cv2.imwrite(str(folder / name), np.full((*HW, 3), 10 * (index + 1), np.uint8))
        videos.append({"id": video_id, "width": HW[1], "height": HW[0], "file_names": names})
    content = {"videos": videos, "categories": [{"id": 1, "name": "thing"}], "annotations": tracks}
    (folder / "train.json").write_text(json.dumps(content))
    return YTVISDataset(folder / "train.json", folder, ("thing",))


def plain(dataset, **options):
    """Clips in which pixels keep their values and nothing is drawn but the frames."""
    return ClipDataset(dataset, [ClipTransform(FrameTransform(HW, (0, 0, 0), (1, 1, 1), 2), 0)], **options)


def frames_of(clip):
    """The frame indices that a clip of a drawn data set shows."""
    return [round(frame[0, 0, 0].item() / 10) - 1 for frame in clip.frames]


def assert_equal(first, second):
    """Two Clips or ClipBatches hold the same bytes."""
    assert pickle.dumps(leaves(first)) == pickle.dumps(leaves(second))


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [(tuple(value.shape), str(value.dtype), value.numpy().tobytes())]
    if isinstance(value, FrameTargets):
        return leaves((value.boxes, value.labels, value.masks, value.instance_ids))
    if isinstance(value, Clip | ClipBatch):
        return leaves((value.frames, value.targets))
    return [leaf for item in value for leaf in leaves(item)]


def draws_nothing(function):
    """The result of `function()`, which must leave torch's global generator as it was."""
    before = torch.get_rng_state()
    result = function()
    assert torch.equal(torch.get_rng_state(), before)
    return result


# ---------------------------------------------------------------------------------------------------- clips


@pytest.mark.parametrize("flip", [0, 1])
def test_the_recorded_item(recorded, reference, flip):
    items = np.load(reference / "dataset_eval" / "train_items.npz")
    # The nearest frame only, so the partner of frame 2 is 1 or 3; some seed draws the recorded 1.
    clips = ClipDataset(recorded, [ClipTransform(FRAMES, flip)], max_distance=1)
    assert len(clips) == items["n_items"]
    drawn = [clips[SampleKey(2, seed)] for seed in range(8)]
    clip = next(clip for clip in drawn if [len(targets) for targets in clip.targets] == [2, 3])
    np.testing.assert_array_equal(clip.frames[:, :, ::2, ::2].numpy(), items[f"item_flip{flip}_img"])
    for number, targets in enumerate(clip.targets):
        for ours, theirs in (("boxes", "bboxes"), ("labels", "labels"), ("masks", "masks"), ("instance_ids", "ids")):
            np.testing.assert_array_equal(getattr(targets, ours).numpy(), items[f"item_flip{flip}_{theirs}{number}"])


def test_the_key_frames_are_the_recorded_ones(recorded, reference):
    frames = [
        (video.video_id, frame) for video in recorded.videos for frame in recorded.annotated_frames(video.video_id)
    ]
    recorded_ids = np.load(reference / "dataset_eval" / "train_items.npz")["img_ids"]
    assert frames == [tuple(pair) for pair in recorded_ids.tolist()]


def test_a_clip_is_a_function_of_its_key(clips):
    first = draws_nothing(lambda: clips[SampleKey(2, 7)])
    torch.rand(3)
    assert_equal(clips[SampleKey(2, 7)], first)
    others = {pickle.dumps(leaves(clips[SampleKey(2, seed)])) for seed in (7, 8, 9, 10, 2**63 - 1)}
    assert len(others) >= 4


def test_boxes_are_around_the_masks_in_flipped_and_straight_clips(recorded):
    clips = ClipDataset(recorded, [ClipTransform(FRAMES, 0.5)])
    sizes = torch.tensor([160, 96, 160, 96])
    lefts = set()
    for seed in range(8):
        clip = clips[SampleKey(0, seed)]
        for targets in clip.targets:
            for box, mask in zip(targets.boxes * sizes, targets.masks, strict=True):
                down, across = mask.nonzero().T
                tight = torch.stack([across.min(), down.min(), across.max(), down.max()])
                torch.testing.assert_close(box, tight.float(), atol=1, rtol=0)
        # The object moves by a few pixels between frames; a flip of one frame alone would move it by 95.
        boxes = [targets.boxes[0, 0].item() * 160 for targets in clip.targets]
        assert abs(boxes[0] - boxes[1]) < 10
        lefts.add(boxes[0] > 80)
    assert lefts == {True, False}


def test_partners_are_at_most_two_annotated_frames_away_and_equally_likely(tmp_path):
    """Frames 0 2 3 5 6 8 are annotated. Around frame 5 that leaves 2 3 6 8, and none of them is skipped."""
    clips = plain(draw(tmp_path, [9], [track(1, 1, [1, 0, 1, 1, 0, 1, 1, 0, 1])]))
    assert len(clips) == 6
    pairs = [tuple(frames_of(clips[SampleKey(3, seed)])) for seed in range(400)]
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    assert set(counts) == {(2, 5), (3, 5), (5, 6), (5, 8)}  # in time order
    assert min(counts.values()) > 65  # 100 expected, standard deviation 8.7
    assert {tuple(frames_of(clips[SampleKey(0, seed)])) for seed in range(20)} == {(0, 2), (0, 3)}
    assert {tuple(frames_of(clips[SampleKey(5, seed)])) for seed in range(20)} == {(5, 8), (6, 8)}


def test_a_frame_alone_is_there_twice(tmp_path):
    clips = plain(draw(tmp_path, [1, 3], [track(1, 1, [1]), track(2, 2, [0, 1, 0])]))
    assert len(clips) == 2
    assert frames_of(clips[SampleKey(0, 0)]) == [0, 0] and frames_of(clips[SampleKey(1, 0)]) == [1, 1]
    assert [targets.instance_ids.tolist() for targets in clips[SampleKey(1, 0)].targets] == [[2], [2]]
    assert frames_of(plain(clips.dataset, max_distance=0)[SampleKey(1, 0)]) == [1, 1]


def test_longer_clips_repeat_a_frame_only_where_frames_run_out(tmp_path):
    dataset = draw(tmp_path, [3], [track(1, 1, [1, 1, 1])])
    assert frames_of(plain(dataset, clip_length=1)[SampleKey(1, 0)]) == [1]
    assert frames_of(plain(dataset, clip_length=3)[SampleKey(1, 0)]) == [0, 1, 2]
    assert frames_of(plain(dataset, clip_length=4)[SampleKey(1, 0)]) == [0, 1, 1, 2]


def test_the_config_sets_the_frames_of_a_clip(tmp_path, caplog):
    dataset = draw(tmp_path, [9], [track(1, 1, [1] * 9)])
    settings = {"train.clip_frames": 4, "train.max_frame_distance": 3, "train.flip_probability": 1.0}
    clips = ClipDataset.from_config(get_config(CFG.name, CFG.flat() | settings), dataset)
    clip = clips[SampleKey(4, 0)]
    assert clip.frames.shape == (4, 3, 96, 160) and len(clip.targets) == 4 and "repeat" not in caplog.text
    boxes = torch.cat([targets.boxes for targets in clip.targets])  # all frames are mirrored, as one is
    assert (boxes == boxes[0]).all() and boxes[0, 0] > 0.5
    ClipDataset.from_config(get_config(CFG.name, settings | {"train.max_frame_distance": 1}), dataset)
    assert "train.clip_frames=4 frames repeat their key frame" in caplog.text and "only 2 others" in caplog.text


def test_crowds_and_objects_without_size_are_neither_key_frames_nor_targets(tmp_path):
    tracks = [
        track(1, 1, [1, 0, 0, 0, 0, 0]),
        track(2, 1, [1, 1, 0, 0, 0, 0], iscrowd=1),
        track(3, 1, [1, 0, 1, 0, 0, 0], areas=[0, None, 0, None, None, None]),
        track(4, 1, [1, 0, 0, 1, 0, 0], bboxes=[[4, 5, 0.5, 6], None, None, [4, 5, 8, 0.9], None, None]),
        track(5, 1, [0, 0, 0, 0, 0, 0], bboxes=[None] * 4 + [[4, 5, 8, 6], None], areas=[None] * 4 + [48, None]),
    ]
    dataset = draw(tmp_path, [6], tracks)
    assert dataset.annotated_frames(1) == (0,)
    clips = plain(dataset)
    assert len(clips) == 1
    assert [targets.instance_ids.tolist() for targets in clips[SampleKey(0, 0)].targets] == [[1], [1]]


def test_boxes_and_areas_that_the_file_lacks_are_taken_from_the_masks(tmp_path):
    """The last frame's mask is empty, the one before has no polygon of three points."""
    empty = {"size": list(HW), "counts": [HW[0] * HW[1]]}
    tracks = [
        track(1, 1, [1, 1, 1], bboxes=None, areas=None, segmentations=[rectangle(4, 5, 12, 11), [[1, 1, 2, 2]], empty])
    ]
    dataset = draw(tmp_path, [3], tracks)
    assert dataset.annotated_frames(1) == (0,)
    boxes = plain(dataset)[SampleKey(0, 0)].targets[0].boxes
    torch.testing.assert_close(boxes, torch.tensor([[4 / 32, 5 / 18, 11 / 32, 10 / 18]]))


def test_a_segmentation_that_cannot_be_used_is_logged_and_left_out(tmp_path, caplog):
    wrong = {"size": [5, 5], "counts": [25]}
    tracks = [
        track(1, 1, [1, 1]),
        track(2, 1, [1, 1], segmentations=[wrong, wrong]),
        track(3, 1, [1, 1], segmentations=[wrong, wrong], areas=None),
    ]
    dataset = draw(tmp_path, [2, 1], [*tracks, track(4, 2, [1], segmentations=[wrong], bboxes=None)])
    with caplog.at_level(logging.WARNING):
        clips = plain(dataset)
        assert len(clips) == 2  # the mask of video 2 was read, to compute its box
        assert "annotation 4, frame 0: a segmentation cannot be used: it is [5, 5]" in caplog.text
        clip = clips[SampleKey(0, 0)]
    assert [targets.instance_ids.tolist() for targets in clip.targets] == [[1], [1]]
    assert "annotation 2, frame 1: a segmentation cannot be used: it is [5, 5]" in caplog.text
    with pytest.raises(InputError, match="annotation 2, frame 0"):
        dataset.frame_annotations(1, 0)


def test_a_data_set_without_truth_is_refused(tmp_path):
    with pytest.raises(InputError, match="train.json: it has no annotations; training needs a set with truth"):
        plain(draw(tmp_path, [2], []))
    unseen = track(1, 1, [1], segmentations=[[], []])
    with pytest.raises(InputError, match="train.json: no frame has a valid annotation"):
        plain(draw(tmp_path / "unseen", [2], [unseen]))


def test_a_data_set_of_crowds_is_refused_as_such(tmp_path):
    crowds = [track(number, 1, [1, 1], iscrowd=1) for number in (1, 2)]
    with pytest.raises(InputError, match=r"train\.json: all 2 annotations are crowds \(iscrowd 1\)"):
        plain(draw(tmp_path, [2], crowds))


def test_a_clip_that_loses_its_objects_has_empty_targets(tmp_path):
    """The box is not empty, but the mask is once it is resized to half the size."""
    pixel = track(1, 1, [1, 1], segmentations=[rectangle(5, 5, 6, 6)] * 2)
    dataset = draw(tmp_path, [2], [pixel])
    clips = ClipDataset(dataset, [ClipTransform(FrameTransform((9, 16), (0, 0, 0), (1, 1, 1), 1), 0)])
    clip = clips[SampleKey(0, 0)]
    assert clip.frames.shape == (2, 3, 9, 16) and [len(targets) for targets in clip.targets] == [0, 0]
    batch = collate_clips([clip, clip])
    assert batch.frames.shape == (2, 2, 3, 9, 16) and batch.targets[1][0].masks.shape == (0, 9, 16)


# ---------------------------------------------------------------------------------------------------- the order


def take(sampler, number):
    return list(itertools.islice(sampler, number))


def test_every_epoch_has_each_item_once_in_an_order_of_its_own():
    samples = [key for batch in take(ClipSampler(7, 4, seed=1), 14) for key in batch]  # 56 samples, 8 epochs
    assert all(len(batch) == 4 for batch in take(ClipSampler(7, 4, seed=1), 14))
    epochs = [[key.index for key in samples[start : start + 7]] for start in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) >= 7
    assert len({key.seed for key in samples}) == 56
    assert all(0 <= key.seed < 2**63 for key in samples)


def test_the_batch_of_an_iteration_depends_on_nothing_but_the_seed():
    straight = take(ClipSampler(7, 4, seed=1), 12)
    assert take(ClipSampler(7, 4, seed=1, start_iteration=5), 7) == straight[5:]
    assert list(ClipSampler(7, 4, seed=1, num_iterations=12)) == straight
    resumed = ClipSampler(7, 4, seed=1, start_iteration=5, num_iterations=12)
    assert len(resumed) == 7 and list(resumed) == straight[5:] == list(resumed)  # and again
    assert take(ClipSampler(7, 4, seed=2), 12) != straight
    finished = ClipSampler(7, 4, seed=1, start_iteration=12, num_iterations=12)
    assert len(finished) == 0 and list(finished) == []


def test_ranks_share_each_batch():
    whole = take(ClipSampler(5, 6, seed=0), 4)
    parts = [take(ClipSampler(5, 6, seed=0, rank=rank, world_size=2), 4) for rank in (0, 1)]
    assert [
        [key for pair in zip(*batches, strict=True) for key in pair] for batches in zip(*parts, strict=True)
    ] == whole


def test_a_batch_may_be_longer_than_an_epoch():
    (batch,) = take(ClipSampler(2, 6, seed=0), 1)
    assert [sorted(key.index for key in batch[start : start + 2]) for start in (0, 2, 4)] == [[0, 1]] * 3


def test_an_endless_sampler_has_no_length():
    with pytest.raises(TypeError):
        len(ClipSampler(2, 2, seed=0))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_items": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"start_iteration": -1},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"batch_size": 3, "world_size": 2},
    ],
)
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(ValueError):
        ClipSampler(**{"num_items": 4, "batch_size": 2, "seed": 0, **changes})


# ---------------------------------------------------------------------------------------------------- several sets


def test_one_set_has_the_order_of_numpys_permutations():
    for seed in (0, 7, 2**32 - 1):  # the greatest seed
        expected = [i for epoch in range(3) for i in np.random.default_rng((seed, epoch)).permutation(5).tolist()]
        assert list(map(SampleOrder([5], seed).index, range(15))) == expected


def test_sets_take_turns_by_their_shares_and_each_is_shuffled_by_itself():
    order = SampleOrder([6, 3, 4], seed=1, weights=[2, 1, 1])
    assert order.shares == [0.5, 0.25, 0.25]
    indices = list(map(order.index, range(240)))
    sets = ["aaaaaabbbcccc"[index] for index in indices]
    assert "".join(sets[:8]) == "abacabac"
    for name, size, start in (("a", 6, 0), ("b", 3, 6), ("c", 4, 9)):
        own = [index - start for index, owner in zip(indices, sets, strict=True) if owner == name]
        epochs = [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 2
    assert [SampleOrder([6, 3, 4], seed=1, weights=[2, 1, 1]).index(sample) for sample in (200, 17, 3)] == [
        indices[sample] for sample in (200, 17, 3)
    ]  # in any order, from any start
    alone = list(map(SampleOrder([6], seed=1).index, range(120)))
    assert [index for index in indices if index < 6] == alone  # the first as if it were alone


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [0.7, 0.1, 0.2], [1e-3, 5, 1 / 3]])
def test_at_any_point_every_set_has_had_its_share(weights):
    order = SampleOrder([50, 7, 20], seed=0, weights=weights)
    counts = np.zeros(3)
    for sample in range(2000):
        counts[np.searchsorted([50, 57], order.index(sample), side="right")] += 1
        assert np.abs(counts - (sample + 1) * np.array(order.shares)).max() <= 2
    if weights is None:
        assert order.shares == pytest.approx([50 / 77, 7 / 77, 20 / 77])


def test_batches_of_several_sets_depend_on_the_seed_alone_and_ranks_share_them():
    def sampler(**numbers):
        return ClipSampler([7, 3], 4, seed=1, num_iterations=12, weights=[1, 1], **numbers)

    straight = list(sampler())
    assert list(sampler(start_iteration=5)) == straight[5:]
    parts = [list(sampler(rank=rank, world_size=2)) for rank in (0, 1)]
    assert [[key for pair in zip(*batches, strict=True) for key in pair] for batches in zip(*parts, strict=True)] == (
        straight
    )
    assert all(sum(key.index >= 7 for key in batch) == 2 for batch in straight)


@pytest.mark.parametrize(("sizes", "weights"), [([], None), ([3, 0], None), ([3, 2], [1, 0]), ([3, 2], [1])])
def test_sets_without_items_or_weight_are_refused(sizes, weights):
    with pytest.raises(ValueError):
        SampleOrder(sizes, 0, weights)


def test_samples_of_joined_sets_know_what_their_set_labels(tmp_path):
    first = plain(draw(tmp_path / "a", [2], [track(5, 1, [1, 1])]))
    second = plain(draw(tmp_path / "b", [1, 1], [track(5, 1, [1]), track(6, 2, [1])]))
    known = torch.tensor([[True, True, False], [True, False, True]])
    joined = JoinedSamples([first, second], known)
    assert len(joined) == 4
    clips = [joined[SampleKey(index, 3)] for index in range(4)]
    for clip, (part, index) in zip(clips, [(first, 0), (first, 1), (second, 0), (second, 1)], strict=True):
        assert torch.equal(clip.frames, part[SampleKey(index, 3)].frames)
    ids = [clip.targets[0].instance_ids.item() for clip in clips]
    assert ids[0] == ids[1] and len(set(ids)) == 3  # both files number from 5
    assert [clip.known.tolist() for clip in clips] == known[[0, 0, 1, 1]].tolist()
    batch = collate_clips(clips)
    assert batch.known.tolist() == known[[0, 0, 1, 1]].tolist()
    assert [part.known.tolist() for part in batch.split(2)] == [known[[0, 0]].tolist(), known[[1, 1]].tolist()]
    alike = collate_clips([JoinedSamples([first, second])[SampleKey(index, 3)] for index in range(4)])
    assert alike.known is None and alike.split(2)[1].known is None
    with pytest.raises(IndexError):
        joined[SampleKey(4, 0)]


# ---------------------------------------------------------------------------------------------------- the loader


def test_batches_are_the_same_whatever_the_workers_and_the_start(clips):
    def load(num_workers, **numbers):
        sampler = ClipSampler(len(clips), 3, seed=4, num_iterations=7, **numbers)
        return list(make_clip_loader(clips, sampler, num_workers, pin_memory=False))

    straight = draws_nothing(lambda: load(0))
    workers = draws_nothing(lambda: load(2))
    resumed = load(2, start_iteration=5)
    assert len(straight) == len(workers) == 7 and len(resumed) == 2
    for ours, theirs in zip(straight + straight[5:], workers + resumed, strict=True):
        assert isinstance(theirs, ClipBatch)
        assert_equal(ours, theirs)
    assert straight[0].frames.shape == (3, 2, 3, 96, 160) and straight[0].frames.dtype == torch.float32


def test_the_loader_hands_on_what_the_data_set_makes_of_the_keys(clips):
    sampler = ClipSampler(len(clips), 2, seed=0, num_iterations=2)
    for keys, batch in zip(sampler, make_clip_loader(clips, sampler, 0, pin_memory=False), strict=True):
        assert_equal(batch, collate_clips([clips[key] for key in keys]))
        ids = [targets.instance_ids for clip in batch.targets for targets in clip]
        assert len(ids) == 4 and set(torch.cat(ids).tolist()) <= {1, 2, 3, 4, 5, 6}


def test_all_clips_of_a_batch_have_one_size_and_other_batches_may_have_another(recorded):
    config = get_config("STMask_demo_config", {"train.scales": ((90, 160), (60, 100)), "input.size_hw": (30, 50)})
    clips = ClipDataset.from_config(config, recorded)
    sampler = ClipSampler(len(clips), 4, seed=0, num_iterations=12)
    sizes = [tuple(batch.frames.shape[-2:]) for batch in make_clip_loader(clips, sampler, 0, pin_memory=False)]
    assert set(sizes) == {(96, 160), (64, 128)}  # padded
    halves = [
        ClipSampler(len(clips), 4, seed=0, start_iteration=7, num_iterations=12, rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    for sampler in halves:
        found = [batch.frames.shape[-2:] for batch in make_clip_loader(clips, sampler, 0, pin_memory=False)]
        assert found == sizes[7:]


def test_without_scales_there_is_one_size(recorded):
    clips = ClipDataset.from_config(get_config("STMask_demo_config", {"input.size_hw": (30, 50)}), recorded)
    assert {clips[SampleKey(0, 0, batch_seed)].frames.shape[-2:] for batch_seed in range(5)} == {(32, 64)}


def test_pictures_of_clips_stay_small_until_they_are_on_the_device(recorded):
    """A batch of pictures, through a worker, and split: each clip keeps the change of its own colours."""
    config = get_config("STMask_demo_config", {"input.size_hw": (30, 50), "train.photometric": True})
    clips = ClipDataset.from_config(config, recorded, as_pictures=True)
    keys = [SampleKey(0, seed) for seed in range(4)]
    sampler = ClipSampler(len(clips), 4, seed=0, num_iterations=1)
    (batch,) = make_clip_loader(clips, sampler, 1, pin_memory=False)
    alike = collate_clips([clips[key] for key in next(iter(sampler))])
    assert torch.equal(batch.frames, alike.frames) and batch.colours == alike.colours and len(batch.colours) == 4
    assert batch.frames.dtype == torch.uint8 and batch.frames.shape == (4, 2, 30, 50, 3)
    assert batch.targets.truth.masks.shape[1:] == (32, 64)  # padded, as the network input will be
    halves = batch.split(2)
    assert [half.colours for half in halves] == [batch.colours[:2], batch.colours[2:]]
    assert collate_clips([ClipDataset.from_config(CFG, recorded, as_pictures=True)[keys[0]]]).colours is None


def test_a_batch_moves_as_one(clips):
    batch = collate_clips([clips[SampleKey(0, 0)]]).to(torch.float64)
    assert batch.frames.dtype == batch.targets[0][1].boxes.dtype == torch.float64


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_a_frame_that_cannot_be_read_is_named_in_one_line(tmp_path, num_workers, content):
    clips = plain(draw(tmp_path, [2], [track(1, 1, [1, 1])]))
    path = tmp_path / "1" / "1.png"
    path.unlink() if content is None else path.write_bytes(content)
    loader = make_clip_loader(clips, ClipSampler(2, 2, seed=0), num_workers, pin_memory=False)
    with pytest.raises(InputError) as caught:
        list(loader)
    reason = "cannot be read: No such file" if content is None else "cannot be decoded as a picture"
    assert str(caught.value).startswith(f"{path}: {reason}") and "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


class _Threads(ClipDataset):
    """Returns the number of threads of a worker, in place of the frames."""

    def __getitem__(self, key):
        clip = super().__getitem__(key)
        return Clip(torch.tensor([torch.get_num_threads(), cv2.getNumThreads()]), clip.targets)


def test_workers_keep_to_one_thread_and_end_with_the_loop(tmp_path):
    clips = _Threads(draw(tmp_path, [1], [track(1, 1, [1])]), [ClipTransform(FRAMES)])
    loader = make_clip_loader(clips, ClipSampler(1, 1, seed=0), 1, pin_memory=False)
    for batch in loader:
        assert len(multiprocessing.active_children()) == 1
        assert batch.frames.tolist() in ([[1, 1]], [[1, 0]])  # cv2 calls no threads of its own 0 or 1
        break
    assert not multiprocessing.active_children()
