"""The network's contract, loading, and the tracker of one video."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.config import MODELS, get_config
from data.trained import named_like
from inference.network import Network
from inference.tracker import VideoTracker
from inference.tracker_step import make_detector
from inference.videos import track_videos
from layers import deform_conv
from layers.cpu import deform_columns
from layers.cpu.packed_products import PackedMatrices, can_pack
from stmask import Anchors, STMask
from tests.serving import serving
from tools.parity import REFERENCE, clip, frame_meta, load_model
from utils.checkpoint import save_state_dict
from utils.checkpoint_shapes import keys_of
from utils.structures import FrameInput, FrameMeta
from ytvis.files import InputError

DEMO = "STMask_demo_config"


@pytest.fixture(scope="module")
def demo():
    torch.manual_seed(0)
    return STMask.from_config(get_config(DEMO)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def on_meta(name, overrides=None):
    with torch.device("meta"):
        return STMask.from_config(get_config(name, overrides))


# ------------------------------------------------------------------------------------------------ all the configs


@pytest.mark.parametrize("name", MODELS)
def test_every_config_builds_the_network_it_names(name):
    config = get_config(name)
    shapes = {key: list(value.shape) for key, value in on_meta(name).state_dict().items()}
    deformable = [key for key in shapes if key.endswith("conv_offset_mask.weight")]
    blocks, interval = config.backbone.blocks, config.backbone.dcn_interval
    expected = sum(-(-count // interval) for count in blocks[1:]) if interval else 0
    assert len(deformable) == expected
    assert [int(key.split(".")[3]) for key in deformable if key.startswith("backbone.layers.2.")] == (
        list(range(0, blocks[2], interval)) if interval else []
    )
    logits = "conf_layer.0.conv.bias" if config.head.calibration != "none" else "conf_layer.0.bias"
    num_outputs = len(config.dataset.class_names) + 1
    if config.head.anchor_scales:  # one convolution for all anchors of a cell: 3 or 9
        logits, num_outputs = "conf_layer.bias", (9 if "plus" in name else 3) * num_outputs
    assert shapes[f"prediction_layers.0.{logits}"] == [num_outputs]
    assert ("prediction_layers.0.conf_layer.0.conv_offset.weight" in shapes) == (config.head.calibration == "ada")


def test_models_differ_from_the_recorded_ones_only_where_their_config_does():
    recorded = json.loads((REFERENCE / "STMask_plus_resnet50" / "keys_STMask_plus_resnet50_config.json").read_text())
    ovis = {key: list(value.shape) for key, value in on_meta("STMask_plus_resnet50_OVIS_config").state_dict().items()}
    assert list(ovis) == list(recorded)
    assert {key for key in ovis if ovis[key] != recorded[key]} == {
        f"prediction_layers.0.conf_layer.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")
    }
    plain = on_meta("STMask_resnet50_config").state_dict()
    assert set(recorded) - set(plain) == {key for key in recorded if "conv2.conv_offset_mask" in key} | {
        key.replace("conv_offset_mask.weight", "bias") for key in recorded if "conv_offset_mask.weight" in key
    }
    deeper = on_meta("STMask_plus_base_config").state_dict()
    assert sum("backbone.layers.2" in key and key.endswith("conv3.weight") for key in deeper) == 23


def test_demo_model_has_all_parts_and_is_small():
    model = on_meta(DEMO)
    names = set(model.state_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_500_000
    assert {"TemporalNet.fc.weight", "prediction_layers.0.conf_layer.2.conv_offset.weight"} <= names
    assert any("conv_offset_mask" in name for name in names)


# ------------------------------------------------------------------------------------------------ forward


def test_forward_has_the_contract_s_shapes_and_ranges(demo, images):
    with torch.inference_mode():
        p = demo(images)
    # P3…P7 of 64×96: 8×12, 4×6, 2×3, 1×2, 1×1 cells, three anchors each
    anchors = (96 + 24 + 6 + 2 + 1) * 3
    assert p.box_deltas.shape == (3, anchors, 4)
    assert p.class_logits.shape == (3, anchors, 9)
    assert p.centerness.shape == (3, anchors)
    assert p.mask_coeffs.shape == (3, anchors, 16)
    assert p.embeddings.shape == (3, anchors, 32)
    assert p.prototypes.shape == (3, 16, 24, 16)
    assert p.anchors.shape == (anchors, 4)
    assert p.prototypes.min() >= 0
    assert p.centerness.abs().max() <= 1
    torch.testing.assert_close(p.embeddings.norm(dim=-1), torch.ones(3, anchors))


def test_anchors_are_made_once_for_each_size_of_a_run(demo, images):
    with torch.inference_mode():
        first = demo(images).anchors
    assert len(demo(images[..., :64]).anchors) < len(first)
    assert demo(images).anchors is first and not first.is_inference()


def test_no_more_than_the_anchors_of_the_last_sizes_are_kept():
    anchors, device = Anchors(get_config(DEMO)), torch.device("cpu")
    sizes = [torch.Size((32, 32 * width)) for width in range(1, Anchors.SIZES + 2)]
    kept = {size: anchors(size, device) for size in sizes}
    assert all(anchors(size, device) is kept[size] for size in sizes[1:])
    assert anchors(sizes[0], device) is not kept[sizes[0]]
    assert anchors(sizes[1], device) is not kept[sizes[1]]  # it gave way to that of the first


def test_a_size_that_comes_back_is_not_compiled_again():
    anchors, graphs = Anchors(get_config(DEMO)), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def network(images):
        return anchors(images.shape[-2:], images.device) + images.sum()

    compiled = torch.compile(network, backend=backend)
    images = [torch.zeros(1, 3, 64, width) for width in (64, 96, 128)]
    for each in images:
        assert torch.equal(compiled(each), network(each))
    number = len(graphs)
    for each in images:
        compiled(each)
    assert len(graphs) == number <= len(images)


def test_a_batch_is_its_images_one_by_one(demo, images):
    with torch.inference_mode():
        together = demo(images)
        alone = demo(images[1:2])
    for name in ("box_deltas", "class_logits", "centerness", "mask_coeffs", "embeddings", "prototypes"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(alone, name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 64, 96), (1, 3, 60, 96), (1, 1, 64, 96)])
def test_other_shapes_are_refused(demo, shape):
    with pytest.raises(ValueError, match="multiples of 32"):
        demo(torch.zeros(shape))


def test_the_model_runs_under_autocast_and_on_meta(images):
    with torch.device("meta"):
        p = on_meta(DEMO).eval()(torch.empty(2, 3, 64, 96))
    assert p.class_logits.shape == (2, 387, 9)
    torch.manual_seed(0)
    model = STMask.from_config(get_config(DEMO)).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        p = model(images[:1])
        assert torch.isfinite(p.box_deltas.float()).all()
        assert make_detector(model.config)(p).boxes.dtype == torch.float32


def test_fresh_weights_are_neutral_where_they_must_be():
    torch.manual_seed(3)
    state = STMask.from_config(get_config(DEMO)).state_dict()
    assert all(not value.any() for key, value in state.items() if "conv_offset_mask" in key)
    assert all(not value.any() for key, value in state.items() if key.endswith("bias"))
    assert state["backbone.conv1.weight"].abs().max() > 0
    torch.manual_seed(3)
    again = STMask.from_config(get_config(DEMO)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in state.items())


# ------------------------------------------------------------------------------------------------ loading


@pytest.fixture
def checkpoint(tmp_path, demo):
    path = tmp_path / "STMask_demo.pth"
    save_state_dict(demo.state_dict(), path)
    return path


def test_from_pretrained_finds_the_config_by_name_and_gives_the_same_network(checkpoint, demo, images):
    model = STMask.from_pretrained(checkpoint)
    assert model.config == demo.config
    assert not model.training
    assert model.device.type in ("cpu", "cuda")
    with torch.inference_mode():
        assert torch.equal(model.to("cpu")(images[:1]).class_logits, demo(images[:1]).class_logits)


def test_from_pretrained_takes_an_address(checkpoint, demo, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("STMASK_WEIGHTS", str(tmp_path))
    with serving() as server:
        server.files["/somewhere/STMask_demo.pth"] = checkpoint.read_bytes()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.files["/owner/repo/resolve/v1/STMask_demo.pth"] = checkpoint.read_bytes()
        for word in (f"{server.url}/somewhere/STMask_demo.pth", "hf:owner/repo/STMask_demo.pth@v1"):
            model = STMask.from_pretrained(word, device="cpu")
            assert model.config.name == DEMO
            assert all(torch.equal(value, demo.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["STMask_demo_3_1200.pth", "STMask_demo_config_3_1200_interrupt.pth", "latest"])
def test_from_pretrained_knows_the_names_of_training(checkpoint, name):
    checkpoint.rename(checkpoint.with_name("STMask_demo_3_1200.pth" if name == "latest" else name))
    assert STMask.from_pretrained(checkpoint.with_name(name), device="cpu").config.name == DEMO


def test_where_the_name_tells_nothing_the_tensors_do(checkpoint, tmp_path):
    other = checkpoint.rename(checkpoint.with_name("best.pth"))
    assert STMask.from_pretrained(other, device="cpu").config == get_config(DEMO)
    assert STMask.from_pretrained(other, config=DEMO, device="cpu").config.name == DEMO
    save_state_dict({"weight": torch.zeros(1)}, tmp_path / "mine.pth")
    with pytest.raises(InputError, match="--config"):
        STMask.from_pretrained(tmp_path / "mine.pth")


def test_a_checkpoint_that_fits_another_config_better_is_refused_by_name(tmp_path, monkeypatch):
    state = load_model("STMask_plus_resnet50_ada").state_dict()
    assert named_like(keys_of(state)) == "STMask_plus_resnet50_ada_config"
    nameless = {**MODELS["STMask_plus_resnet50_ada_config"], "dataset.class_names": ()}
    for module in ("data.trained", "data.config"):  # your own config, with the classes of its data set
        monkeypatch.setattr(f"{module}.MODELS", {"STMask_mine_config": nameless, **MODELS})
    path = tmp_path / "STMask_plus_resnet50.pth"
    save_state_dict(state, path)
    with pytest.raises(InputError, match=r"fits STMask_plus_resnet50_ada_config .*missing.*unexpected") as error:
        STMask.from_pretrained(path)
    assert "\n" not in str(error.value)


def test_missing_tensors_are_an_error_and_unexpected_ones_a_line(tmp_path, demo, caplog):
    state = dict(demo.state_dict())
    save_state_dict({**state, "fpn.extra.weight": torch.zeros(1)}, tmp_path / "STMask_demo.pth")
    STMask.from_pretrained(tmp_path / "STMask_demo.pth", device="cpu")
    assert "1 unexpected (fpn.extra.weight)" in caplog.text
    del state["fpn.lat_layers.0.weight"]
    save_state_dict(state, tmp_path / "STMask_demo.pth")
    with pytest.raises(InputError, match="1 missing"):
        STMask.from_pretrained(tmp_path / "STMask_demo.pth")


def test_a_model_without_fusion_takes_a_checkpoint_with_it(checkpoint, caplog):
    config = get_config(DEMO, {"temporal_fusion.enabled": False})
    model = STMask.from_pretrained(checkpoint, config, device="cpu")
    assert "TemporalNet" in caplog.text
    assert not any(name.startswith("TemporalNet") for name in model.state_dict())


# ------------------------------------------------------------------------------------------------ the tracker


def tensors_of(tracks):
    """Its fields but velocities, which are None with temporal fusion, and past embeddings, which are not reported."""
    absent = ("velocities", "past_embeddings")
    assert all(getattr(tracks, name, None) is None for name in absent)
    return {name: value for name, value in vars(tracks).items() if name not in absent}


def assert_same_tracks(ours, theirs):
    for name, value in tensors_of(ours).items():
        assert torch.equal(value, getattr(theirs, name)), name


def test_trackers_of_several_videos_share_a_model(demo, images):
    alone = VideoTracker(demo)
    expected = [alone.step(image) for image in images]
    one, other = VideoTracker(demo), VideoTracker(demo)
    for image, mirrored, tracks in zip(images, images.flip(-1), expected, strict=True):
        assert_same_tracks(one.step(image), tracks)
        other.step(mirrored)
    one.reset()
    assert_same_tracks(one.step(images[0]), expected[0])


def test_the_caller_s_tensors_and_former_tracks_stay_as_they_are(demo, images):
    tracker = VideoTracker(demo)
    image = images[0].clone()
    first = tracker.step(image)
    copy = {name: value.clone() for name, value in tensors_of(first).items()}
    tracker.step(images[1])
    assert torch.equal(image, images[0])
    assert all(torch.equal(getattr(first, name), value) for name, value in copy.items())


@pytest.mark.parametrize("fusion", [True, False])
def test_nothing_found_gives_no_tracks(images, fusion):
    overrides = {"detection.conf_threshold": 1.0, "temporal_fusion.enabled": fusion}
    tracker = VideoTracker(STMask.from_config(get_config(DEMO, overrides)).eval())
    for image in images:
        tracks = tracker.step(image)
        assert len(tracks) == 0
        assert tracks.masks.shape == (0, 16, 24)


def test_an_unseen_object_fades_hides_after_ten_frames_and_keeps_its_id():
    model = load_model("STMask_plus_resnet50")
    tracker = VideoTracker(model)
    first = tracker.step(clip(3)[0])
    tracker.step(clip(3)[1])
    known = len(tracker.known)
    ages, visible = [], []
    for image in clip(3)[2:]:  # no detections from here on
        tracks = tracker.step(image)
        ages.append(tracker.known.ages.max().item())
        visible.append(len(tracks))
        assert (tracks.ages <= 10).all()
    assert len(tracker.known) == known  # hidden, not forgotten
    assert len(first) > 0
    assert visible[0] > 0 and visible[-1] < visible[0]
    assert ages == sorted(ages) and ages[-1] >= 12
    back = tracker.step(clip(3)[1])  # they are found again under their old ids
    assert set(back.track_ids.tolist()) & set(range(known))


def test_quirk_hidden_low_scores_can_become_objects():
    frames = clip(1)[:2]
    held = {}
    for quirk in (True, False):
        config = get_config("STMask_plus_resnet50_config", {"quirks.hidden_low_scores": quirk})
        model = load_model("STMask_plus_resnet50")
        tracker = VideoTracker(model)
        tracker.compute_step = replace(tracker.compute_step, detector=make_detector(config))
        for image in frames:
            tracker.step(image)
        held[quirk] = tracker.known.scores
    assert (held[True] <= 0.05).any()
    assert len(held[False]) < len(held[True])
    assert (held[False] > 0.05 * 0.95).all()


def test_quirk_plain_scores_without_fusion_leave_the_centerness_out():
    for quirk, expected in ((True, False), (False, True)):
        overrides = {"temporal_fusion.enabled": False, "quirks.plain_scores_without_fusion": quirk}
        config = get_config(DEMO, overrides)
        assert make_detector(config, cross_class_nms=False).use_centerness is expected
        assert make_detector(config, cross_class_nms=True).use_centerness
    assert make_detector(get_config(DEMO), cross_class_nms=False).use_centerness


def test_quirk_binary_masks_without_fusion(images):
    for quirk in (True, False):
        overrides = {"temporal_fusion.enabled": False, "quirks.binary_masks_without_fusion": quirk}
        torch.manual_seed(0)
        masks = VideoTracker(STMask.from_config(get_config(DEMO, overrides)).eval()).step(images[0]).masks
        assert len(masks)
        assert torch.equal(masks, masks.round()) is quirk


def test_quirk_double_tanh_without_fusion():
    without = {"temporal_fusion.enabled": False}
    assert make_detector(get_config(DEMO, without)).double_tanh
    assert not make_detector(get_config(DEMO, {**without, "quirks.double_tanh_without_fusion": False})).double_tanh
    assert not make_detector(get_config(DEMO)).double_tanh


def test_cross_class_nms_can_be_chosen_per_video():
    model = load_model("STMask_plus_resnet50")
    counts = {mode: len(VideoTracker(model, cross_class_nms=mode).step(clip(1)[0])) for mode in (True, False)}
    recorded = {
        mode: np.load(REFERENCE / "STMask_plus_resnet50" / f"tracking_{nms}.npz")["n"][0]
        for mode, nms in ((True, "cc"), (False, "pc"))
    }
    assert counts == recorded
    assert counts[True] != counts[False]


# ------------------------------------------------------------------------------------------------ many videos


def frame_inputs(videos, bad=()):
    for video in videos:
        images = clip(video)[:3]
        for index, image in enumerate(images):
            meta = frame_meta(video, index)
            error = "frame.jpg: cannot be decoded" if (video, index) in bad else None
            yield FrameInput(meta, None if error else image, index == len(images) - 1, error=error)


@pytest.mark.parametrize("batch_size", [2, 4, 9])
def test_batches_of_frames_keep_order_cuts_and_bad_frames(batch_size):
    model = load_model("STMask_plus_resnet50")
    seen = []

    def network(images):
        seen.append(len(images))
        return model(images)

    network.changes = Network(model, fused=False).changes
    alone = list(track_videos(model, frame_inputs([1, 2], bad=[(1, 1)])))
    together = list(
        track_videos(
            model,
            frame_inputs([1, 2], bad=[(1, 1)]),
            tracker=VideoTracker(model, network=network),
            batch_size=batch_size,
        )
    )
    assert seen == {2: [1, 2, 2], 4: [3, 2], 9: [5]}[batch_size]
    for ours, theirs in zip(together, alone, strict=True):
        assert (ours.meta, ours.is_last, ours.error) == (theirs.meta, theirs.is_last, theirs.error)
        if theirs.objects is not None:
            assert torch.equal(ours.objects.track_ids, theirs.objects.track_ids)
            assert torch.equal(ours.objects.labels, theirs.objects.labels)
            torch.testing.assert_close(ours.objects.scores, theirs.objects.scores, atol=1e-4, rtol=0)


def test_track_videos_starts_each_video_anew_keeps_the_last_frame_and_the_training_mode():
    model = load_model("STMask_plus_resnet50")
    model.train()
    try:
        results = list(track_videos(model, frame_inputs([1, 2])))
        assert model.training
    finally:
        model.eval()
    assert [(r.meta.video_id, r.meta.frame_index, r.is_last) for r in results] == [
        (1, 0, False), (1, 1, False), (1, 2, True), (2, 0, False), (2, 1, False), (2, 2, True),
    ]  # fmt: skip
    alone = list(track_videos(model, frame_inputs([2])))
    for ours, theirs in zip(results[3:], alone, strict=True):
        assert torch.equal(ours.objects.track_ids, theirs.objects.track_ids)
        assert torch.equal(ours.objects.masks, theirs.objects.masks)
    assert len(results[-1].objects) > 0
    assert results[0].objects.masks.shape[1:] == (180, 320)


def test_a_bad_frame_is_as_if_it_were_not_there():
    model = load_model("STMask_plus_resnet50")
    results = list(track_videos(model, frame_inputs([1], bad=[(1, 1)])))
    assert results[1].objects is None and "decoded" in results[1].error
    without = [frame for frame in frame_inputs([1]) if frame.meta.frame_index != 1]
    expected = list(track_videos(model, without))
    assert torch.equal(results[2].objects.track_ids, expected[1].objects.track_ids)
    assert np.array_equal(results[2].objects.boxes_px, expected[1].objects.boxes_px)


# ------------------------------------------------------------------------------------------------ how it is run


@torch.inference_mode()
@pytest.mark.parametrize("name", ["STMask_plus_resnet50", "STMask_plus_resnet50_ada"])
def test_the_fused_network_says_what_the_model_says_and_leaves_it_alone(name):
    model = load_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = Network(model)
    images = clip(1)[:2]
    ours, expected = network(images), model(images)
    anchors = torch.arange(len(expected.anchors))
    for field in ("box_deltas", "class_logits", "centerness", "mask_coeffs", "embeddings", "prototypes"):
        a, b = getattr(ours, field), getattr(expected, field)
        if field in ("mask_coeffs", "embeddings"):
            a, b = (torch.stack([values[index, anchors] for index in range(2)]) for values in (a, b))
        assert (a - b).abs().max() <= 2e-5 * b.abs().max(), field
    plain, fused = VideoTracker(model), VideoTracker(model, network=network)
    for image in clip(1)[:4]:
        a, b = fused.step(image), plain.step(image)
        assert torch.equal(a.track_ids, b.track_ids) and torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.masks, b.masks, atol=1e-3, rtol=0)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.skipif(not deform_columns.is_built(), reason="needs the compiled kernels")
@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="oneDNN is not here")
@torch.inference_mode()
def test_a_fused_network_lays_out_the_weights_of_deformable_convolutions_once(monkeypatch):
    made = []
    monkeypatch.setattr(deform_columns, "PackedMatrices", lambda *line: made.append(line) or PackedMatrices(*line))
    model = load_model("STMask_plus_resnet50_ada")
    network = Network(model)
    kept = [module for module in network._model.modules() if getattr(module, "packed", None)]
    assert len(made) == len(kept) > 3  # more than the three of the head
    first, second = network(clip(1)[:1]), network(clip(1)[:1])
    assert len(made) == len(kept)
    for module in kept:
        module.packed = None
    as_before = network(clip(1)[:1])
    assert len(made) > 2 * len(kept)  # the head's at each level
    for field in ("box_deltas", "class_logits", "centerness", "prototypes"):
        assert torch.equal(getattr(first, field), getattr(as_before, field)), field
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    assert not any(getattr(module, "packed", None) for module in model.modules())


@torch.inference_mode()
def test_in_bfloat16_the_network_alone_is_bfloat16(demo, images):
    network = Network(demo, "bf16")
    predictions, exact = network(images[:1]), demo(images[:1])
    assert predictions.class_logits.dtype == predictions.fusion_features.shared.dtype == torch.bfloat16
    assert predictions.anchors.dtype == torch.float32
    difference = (predictions.class_logits.float() - exact.class_logits).abs().max() / exact.class_logits.abs().max()
    assert 0 < difference < 0.05
    tracker = VideoTracker(demo, network=network)
    for image in images[:2]:
        tracker.step(image)
        known = tracker.known
        assert len(known)
        for field in ("boxes", "scores", "centerness", "mask_coeffs", "embeddings", "masks"):
            assert getattr(known, field).dtype == torch.float32, field


def test_half_precision_needs_a_gpu(demo):
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        Network(demo, "fp16")


def test_overlapped_tracking_gives_the_same_results_in_the_same_order(demo, images):
    frames = list(demo_frames(images))
    alone, ahead = (list(track_videos(demo, frames, overlap=overlap)) for overlap in (False, True))
    assert len(alone) == len(ahead) == 6
    for ours, theirs in zip(ahead, alone, strict=True):
        assert (ours.meta, ours.is_last, ours.error) == (theirs.meta, theirs.is_last, theirs.error)
        if ours.objects is not None:
            assert_same_tracks(ours.objects, theirs.objects)


def test_overlapped_tracking_raises_what_reading_raises_and_ends_when_it_is_closed(demo, images):
    def broken():
        yield from list(demo_frames(images))[:2]
        raise OSError("the disk is gone")

    results = track_videos(demo, broken(), overlap=True)
    assert [next(results).meta.frame_index for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    demo.train()
    closed = []

    def endless():
        try:
            while True:
                yield from demo_frames(images)
        finally:
            closed.append(True)

    results = track_videos(demo, endless(), overlap=True)
    next(results)
    results.close()
    assert closed == [True]
    assert demo.training
    demo.eval()
    assert not [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


def test_overlapped_tracking_keeps_the_caller_s_backend(demo, images, monkeypatch):
    seen = []
    monkeypatch.setattr(VideoTracker, "look", lambda self, images: seen.append(deform_conv._backend.get()) or 1 / 0)
    with deform_conv.deform_backend("torchvision"), pytest.raises(ZeroDivisionError):
        list(track_videos(demo, demo_frames(images), overlap=True))
    assert seen == ["torchvision"]


def demo_frames(images):
    for video in (1, 2):
        for index, image in enumerate(images):
            meta = FrameMeta(video, index, (50, 70), (64, 96), (64, 96))
            bad = (video, index) == (1, 1)
            yield FrameInput(meta, None if bad else image, index == 2, error="bad" if bad else None)


def test_objects_can_be_indexed_joined_and_moved():
    tracks = VideoTracker(load_model("STMask_plus_resnet50")).step(clip(1)[0])
    assert len(tracks[:2]) == 2 and len(tracks[-1]) == 1 and len(tracks[tracks.scores > 2]) == 0
    joined = type(tracks).cat([tracks[:2], tracks[2:]])
    assert_same_tracks(joined, tracks)
    assert tracks.to("meta").boxes.device.type == "meta"
    assert replace(tracks, ages=tracks.ages + 1).ages.min() >= 1


@pytest.mark.parametrize("calibration", ["none", "ada"])
def test_a_head_without_centerness_and_embeddings_is_tracked_by_overlaps(images, calibration):
    overrides = {
        **{"head.centerness": False, "head.embedding_dim": 0, "head.calibration": calibration},
        **{"temporal_fusion.enabled": False, "tracking.new_object_similarity": 0},
    }
    torch.manual_seed(0)
    model = STMask.from_config(get_config(DEMO, overrides)).eval()
    assert not any(part in key for key in model.state_dict() for part in ("track_", "centerness", "TemporalNet"))
    with torch.inference_mode():
        p = model(images[:1])
    assert p.centerness is None and p.embeddings is None
    for network in (None, Network(model)):
        tracker = VideoTracker(model, network=network)
        first, again = tracker.step(images[0]), tracker.step(images[0])
        torch.testing.assert_close(first.scores, make_detector(model.config)(p).scores, atol=1e-5, rtol=1e-4)
        assert len(first)
        assert set(again.track_ids.tolist()) <= set(first.track_ids.tolist())
        assert set(tracker.state_dict()).isdisjoint({"known.centerness", "known.embeddings"})
