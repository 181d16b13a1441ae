"""YOLACT and YOLACT++ give the recorded numbers: tests/fixtures/reference_yolact/README.md says what each array is."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.config import MODELS, get_config
from data.transforms import FrameTransform
from eval import main as evaluate
from inference.network import Network, fused_copy
from inference.tracker import VideoTracker
from inference.tracker_step import make_detector
from layers.anchors import anchor_shapes_px, make_scaled_anchors
from layers.losses import MultiBoxLoss
from layers.mask_rescoring import MaskIoUNet
from layers.mask_utils import assemble_masks
from layers.postprocess import postprocess
from stmask import STMask, anchors_of
from tests.fixtures.reference import fill
from utils.checkpoint import save_state_dict
from utils.structures import FrameMeta, RescoredTracks, Tracks
from utils.training_state import start_from
from ytvis.files import InputError
from ytvis.masks import decode_mask
from ytvis.pixels import enlarge

RECORDED = Path(__file__).parent / "fixtures" / "reference_yolact"
PLUS, PLAIN = "yolact_plus_resnet50", "yolact_resnet50"
IMAGES = ("small", "wide", "tall")
BOX, SCORE, COEFF, MASK_PIXELS = 2e-5, 1e-4, 5e-4, 3  # tolerances from torch's bilinear, as the README suggests


# ------------------------------------------------------------------------------------------------ the recorded network


def config_of(name, **overrides):
    return get_config(f"{name.replace('yolact', 'YOLACT')}_config", overrides)


@cache
def weights(name):
    recipe = json.loads((RECORDED / name / "recipe.json").read_text())
    filled = fill.fill_state_dict(published_shapes(name), recipe["seed"], recipe["overrides"])
    assert fill.checksum(filled) == recipe["checksum"]
    return {key: torch.as_tensor(value) for key, value in filled.items()}


def published_shapes(name):
    return json.loads((RECORDED / name / f"keys_{name}_config.json").read_text())


@cache
def load_model(name, size=550):
    model = STMask.from_config(config_of(name, **{"input.size_hw": (size, size)})).eval()
    model.load_state_dict(weights(name))
    return model


@cache
def pictures():
    return dict(np.load(RECORDED / "images.npz"))


def network_input(image, size_hw):
    settings = config_of(PLUS).input
    return FrameTransform(size_hw, settings.mean, settings.std, 1, settings.whole_pixels)(pictures()[image])[0]


def aspect_kept(image, size):
    height, width = pictures()[image].shape[:2]
    return int(size / (width / height) ** 0.5), int(size * (width / height) ** 0.5)


@cache
def predictions(name, size, image):
    with torch.inference_mode():
        return load_model(name, size)(network_input(image, (size, size))[None])


def meta(size_hw, size=550):
    return FrameMeta(0, 0, tuple(size_hw), (size, size), (size, size))


def assert_near(ours, recorded, tolerance):
    np.testing.assert_allclose(np.asarray(ours), recorded, rtol=0, atol=tolerance)


def assert_summary(ours, recorded, key, tolerance):
    assert list(ours.shape) == recorded[f"{key}_shape"].tolist(), key
    flat = ours.flatten()
    assert_near(flat[:64], recorded[f"{key}_first64"], tolerance)
    assert_near(flat[:: int(recorded[f"{key}_stride"])], recorded[f"{key}_sample"], tolerance)
    assert_near(flat.double().mean(), recorded[f"{key}_mean"], tolerance)
    assert_near(flat.double().std(unbiased=False), recorded[f"{key}_std"], tolerance)


@pytest.mark.parametrize("name", [PLUS, PLAIN])
def test_the_state_dict_is_the_published_one(name):
    published = {key: shape for key, shape in published_shapes(name).items() if not key.startswith("semantic_seg_conv")}
    ours = {key: list(value.shape) for key, value in load_model(name).state_dict().items()}
    assert ours == published
    groups = [key.split(".")[0] for key in ours]
    assert groups == sorted(groups, key=[key.split(".")[0] for key in published].index)


def test_what_inference_never_reads_may_be_in_a_file_or_not(caplog):
    caplog.set_level("INFO")
    with torch.device("meta"):
        model = STMask.from_config(config_of(PLAIN))
    state = dict(model.state_dict())
    more = {"semantic_seg_conv.bias": 0, "fpn.downsample_layers.2.weight": 0, "backbone.layer1.0.bn1.bias": 0}
    model.load_state_dict({**state, **dict.fromkeys(more, torch.zeros(80))}, assign=True)
    assert all(name in caplog.text for name in more)
    model.load_state_dict(state, assign=True)
    with pytest.raises(RuntimeError, match="maskiou_net"):
        model.load_state_dict({**state, "maskiou_net.maskiou_net.0.bias": torch.zeros(8)}, assign=True)
    del state["fpn.downsample_layers.1.weight"]
    with pytest.raises(RuntimeError, match=r"downsample_layers\.1"):
        model.load_state_dict(state, assign=True)


@pytest.mark.parametrize(
    ("name", "num_tensors", "num_deformable"),
    [("YOLACT_plus_resnet50", 403, 13), ("YOLACT_plus_base", 703, 11), ("YOLACT_resnet50", 352, 0),
     ("YOLACT_base", 658, 0)],
)  # fmt: skip
def test_each_config_is_the_published_network(name, num_tensors, num_deformable):
    with torch.device("meta"):
        state = STMask.from_config(get_config(name)).state_dict()
    assert len(state) == num_tensors
    assert sum(key.endswith("conv_offset_mask.weight") for key in state) == num_deformable
    assert get_config(name).num_classes == 80


# ------------------------------------------------------------------------------------------------ preprocessing


def test_preprocessing_is_the_recorded_one():
    recorded = np.load(RECORDED / "preprocess.npz")
    for image in IMAGES:
        ours = network_input(image, (550, 550))
        assert_summary(ours, recorded, f"fast550_{image}", 1e-5)
        assert_summary(ours, recorded, f"base550_{image}", 2e-4)
        assert recorded[f"fast_minus_base550_{image}_max"] < 1e-4
        assert_summary(network_input(image, (138, 138)), recorded, f"fast138_{image}", 1e-5)
        assert_summary(network_input(image, aspect_kept(image, 550)), recorded, f"fast550_ar_{image}", 1e-5)


# ------------------------------------------------------------------------------------------------ the network


@cache
def forward(name, prefix):
    """(recorded arrays, [(name, tensor) of the stages], predictions) of a run of forward.npz."""
    size = 550 if prefix == "s550_" else 138
    size_hw = aspect_kept("wide", size) if prefix == "ar_" else (size, size)
    images = torch.stack([network_input(image, size_hw) for image in (("wide", "tall") if not prefix else ("wide",))])
    model = load_model(name, size)
    stages, outputs = {}, {}
    hooks = [
        model.backbone.register_forward_hook(lambda _, __, out: stages.update(backbone=out)),
        model.fpn.register_forward_hook(lambda _, __, out: stages.update(fpn=out)),
        model.prediction_layers[0].register_forward_hook(lambda _, __, out: stages.update(up=out[1])),
    ]
    with torch.inference_mode():
        outputs = model(images)
    for hook in hooks:
        hook.remove()
    summaries = {f"{kind}{i}": x for kind, values in stages.items() for i, x in enumerate(values)}
    return {"input": images, **summaries, "proto": outputs.prototypes}, outputs


RUNS = [(name, prefix) for name in (PLUS, PLAIN) for prefix in ("", "ar_", "s550_")]


@pytest.mark.parametrize(("name", "prefix"), RUNS)
def test_the_network_stage_by_stage(name, prefix):
    recorded = np.load(RECORDED / name / "forward.npz")
    summaries, p = forward(name, prefix)
    assert len(summaries) == 16
    for key, value in summaries.items():
        assert_summary(value, recorded, f"{prefix}{key}", 1e-3)
    assert [list(summaries[f"fpn{i}"].shape[2:]) for i in range(5)] == recorded[f"{prefix}levels"].tolist()
    assert len(p.anchors) == recorded[f"{prefix}num_priors"]
    assert p.centerness is None and p.embeddings is None


@pytest.mark.parametrize(("name", "prefix"), [run for run in RUNS if run[1]])
def test_outputs_of_larger_and_other_inputs(name, prefix):
    recorded = np.load(RECORDED / name / "forward.npz")
    _, p = forward(name, prefix)
    every, conf_every = int(recorded[f"{prefix}every"]), int(recorded[f"{prefix}conf_every"])
    assert_near(p.anchors[::every], recorded[f"{prefix}priors"], 1e-7)
    assert_near(p.box_deltas[:, ::every], recorded[f"{prefix}loc"], 1e-3)
    assert_near(p.class_logits[:, ::conf_every], recorded[f"{prefix}conf_logit"], 1e-3)
    assert_near(p.mask_coeffs[:, ::conf_every], recorded[f"{prefix}mask_raw"], 1e-3)
    assert_near(p.prototypes[:, ::9, ::9], recorded[f"{prefix}proto_every9"], 1e-3)
    firsts = recorded[f"{prefix}priors_first_cell"]
    starts = np.cumsum([0, *(h * w * firsts.shape[1] for h, w in recorded[f"{prefix}levels"][:-1])])
    for start, first in zip(starts, firsts, strict=True):
        assert_near(p.anchors[start : start + len(first)], first, 1e-7)


@pytest.mark.parametrize("name", [PLUS, PLAIN])
def test_outputs_of_a_small_batch(name):
    recorded = np.load(RECORDED / name / "forward.npz")
    _, p = forward(name, "")
    probabilities = p.class_logits.softmax(-1)
    best, best_class = probabilities[..., 1:].max(-1)
    assert_near(p.anchors, recorded["priors"], 1e-7)
    assert_near(p.box_deltas[:, ::5], recorded["loc_every5"], 1e-3)
    assert_near(p.class_logits[:, ::29], recorded["conf_logit_every29"], 1e-3)
    assert_near(best, recorded["conf_best"], 2e-5)
    differs = best_class.numpy() != recorded["conf_best_class"]
    second = probabilities[..., 1:].topk(2).values[..., 1]
    assert (best - second)[torch.from_numpy(differs)].abs().sum() < 1e-5  # only where two classes tie
    assert_near(probabilities[:, ::211], recorded["conf_softmax_every211"], 2e-5)
    assert_near(p.mask_coeffs[:, ::29], recorded["mask_raw_every29"], 1e-3)
    assert_near(p.mask_coeffs[:, ::211].tanh(), recorded["mask_tanh_every211"], 1e-3)
    assert_near(p.prototypes[0, ::2, ::2], recorded["proto_frame0_every2"], 1e-3)
    assert_near(p.prototypes[1, ::4, ::4], recorded["proto_frame1_every4"], 1e-3)


# ------------------------------------------------------------------------------------------------ detection


@pytest.mark.parametrize("nms", ["pc", "cc"])
@pytest.mark.parametrize("size", [138, 288, 550])
def test_detections_are_the_recorded_ones(size, nms):
    recorded = np.load(RECORDED / PLUS / "detections.npz")
    detector = make_detector(config_of(PLUS), cross_class_nms=nms == "cc")
    counts = recorded[f"s{size}_{nms}_n"]
    for index, image in enumerate(IMAGES):
        p = predictions(PLUS, size, image)
        candidates = p.class_logits[0].softmax(-1)[:, 1:].amax(1) > 0.05
        assert candidates.sum() == recorded[f"s{size}_n_cand"][index]
        ours = detector(p)
        assert len(ours) == counts[index]
        if not len(ours):
            continue
        part = slice(counts[:index].sum(), counts[: index + 1].sum())
        rows = {key: recorded[f"s{size}_{nms}_{key}"][part] for key in ("box", "score", "class", "coeff", "prior")}
        anchors = {row.tobytes(): anchor for anchor, row in enumerate(p.mask_coeffs[0].numpy())}
        priors = np.array([anchors[row.tobytes()] for row in ours.mask_coeffs.numpy()])
        classes = ours.labels.numpy() - 1
        assert (ours.scores.diff() <= 0).all()
        order, expected = np.lexsort((classes, priors)), np.lexsort((rows["class"], rows["prior"]))
        assert np.array_equal(priors[order], rows["prior"][expected])
        assert np.array_equal(classes[order], rows["class"][expected])
        assert_near(ours.boxes[order], rows["box"][expected], BOX)
        assert_near(ours.scores[order], rows["score"][expected], SCORE)
        assert_near(ours.mask_coeffs.tanh()[order], rows["coeff"][expected], COEFF)


# ------------------------------------------------------------------------------------------------ postprocessing


def as_new_tracks(image, nms="pc"):
    tracker = VideoTracker(load_model(PLUS), cross_class_nms=nms == "cc")
    return tracker.update(predictions(PLUS, 550, image))


def pixels(entry, index, size_hw):
    return decode_mask({"size": list(size_hw), "counts": entry["rle"][index]})


def assert_objects(objects, entry, size_hw, mask_pixels=MASK_PIXELS):
    """That the objects are those of an entry of the recorded files, in its order."""
    assert (objects.labels.numpy() - 1).tolist() == entry["class"]
    assert_near(objects.scores, entry.get("mask_score", entry.get("score")), SCORE)
    assert_near(objects.boxes_px, entry["box"], 1)
    areas = objects.masks.flatten(1).sum(1)
    assert_near(areas, entry["mask_area"], mask_pixels)
    for index, mask in enumerate(objects.masks.numpy() if "rle" in entry else ()):
        assert (mask != pixels(entry, index, size_hw)).sum() <= mask_pixels


@pytest.mark.parametrize("image", IMAGES)
def test_reported_objects_are_the_recorded_ones(image):
    recorded = json.loads((RECORDED / PLUS / "postprocess.json").read_text())[image]
    size_hw = recorded["size"]
    tracks = as_new_tracks(image)
    assert isinstance(tracks, RescoredTracks)
    assert_near(tracks.scores, recorded["eval"]["box_score"], SCORE)
    assert_objects(postprocess(tracks, meta(size_hw), 0, one_sided=True), recorded["eval"], size_hw)
    over = tracks[tracks.scores > 0.15]
    assert_near(over.scores, recorded["eval_over_0.15"]["box_score"], SCORE)
    assert_objects(postprocess(over, meta(size_hw), 0, one_sided=True), recorded["eval_over_0.15"], size_hw)
    cross_class = as_new_tracks(image, "cc")
    assert_near(cross_class.scores, recorded["eval_cross_class"]["box_score"], SCORE)
    assert_objects(postprocess(cross_class, meta(size_hw), 0, one_sided=True), recorded["eval_cross_class"], size_hw)
    assert_drawing(tracks, recorded["display"], size_hw)
    if "eval_no_crop" in recorded:
        prototypes = predictions(PLUS, 550, image).prototypes[0]
        uncropped = torch.sigmoid(prototypes @ tracks.mask_coeffs.tanh().t()).permute(2, 0, 1)
        assert_uncropped(uncropped, tracks.labels, tracks.scores, recorded["eval_no_crop"], size_hw)


def assert_drawing(tracks, entry, size_hw):
    """That with a threshold of 0.15 and top_k of 15 the recorded objects are drawn."""
    over = tracks[tracks.scores > 0.15]
    assert len(over) == entry["n_over_threshold"]
    rescored = over.scores * over.mask_ious
    assert_near(rescored, entry["all_scores"], SCORE)
    drawn = postprocess(tracks, meta(size_hw), 0.15, top_k=15, one_sided=True)
    assert len(drawn) == entry["n_shown"]
    assert_objects(drawn[drawn.scores.argsort(descending=True, stable=True)], entry, size_hw)
    assert rescored.argsort(descending=True, stable=True)[:15].tolist() == entry["order"]
    assert len(entry["order"]) == entry["n_top_k"]


def assert_uncropped(masks, labels, scores, entry, size_hw):
    with torch.inference_mode():
        mask_ious = load_model(PLUS).maskiou_net.of_labels(masks, labels)
    assert_near(scores * mask_ious, entry["mask_score"], SCORE)
    areas = enlarge(masks.numpy(), tuple(size_hw)).sum(axis=(1, 2))
    assert_near(areas, entry["mask_area"], MASK_PIXELS)


def test_postprocessing_of_given_detections():
    given = np.load(RECORDED / PLUS / "postprocess_input.npz")
    recorded = json.loads((RECORDED / PLUS / "postprocess_expected.json").read_text())
    prototypes, boxes, scores, coeffs = (torch.from_numpy(given[key]) for key in ("proto", "box", "score", "coeff"))
    labels, before_tanh = torch.from_numpy(given["class"]).long() + 1, coeffs.double().atanh().float()
    masks = assemble_masks(prototypes, before_tanh, boxes)
    tracks = Tracks(boxes, scores, labels, None, before_tanh, None, masks, torch.arange(32), torch.zeros(32).long())
    assert_near(masks.sum(dim=(1, 2)), recorded["soft_mask_sum"], 1e-2)
    assert_near((masks > 0.5).sum(dim=(1, 2)), recorded["soft_mask_over_half"], 1)
    net = load_model(PLUS).maskiou_net
    with torch.inference_mode():
        assert_near(net(masks[:2]), recorded["maskiou_all_classes_of_first_two"], 1e-4)
        rescored = RescoredTracks(**vars(tracks), mask_ious=net.of_labels(masks, labels))
    assert recorded["sizes_hw"] == [[485, 359], [64, 96]]
    for size_hw in recorded["sizes_hw"]:
        name = f"eval_{size_hw[0]}x{size_hw[1]}"
        objects = postprocess(rescored, meta(size_hw), 0, one_sided=True)
        assert_near(tracks.scores, recorded[name]["box_score"], 1e-7)
        assert_objects(objects, recorded[name], size_hw)
        assert objects.boxes_px.tolist() == recorded[name]["box"]
    over = rescored[scores > 0.15]  # one score is exactly 0.15
    size_hw = [485, 359]
    assert_objects(postprocess(over, meta(size_hw), 0, one_sided=True), recorded["eval_485x359_over_0.15"], size_hw)
    assert_drawing(rescored, recorded["display_485x359"], size_hw)
    without = postprocess(tracks, meta((64, 96)), 0, one_sided=True)
    assert_near(without.scores, recorded["eval_64x96_without_rescoring"]["box_score"], 1e-7)
    assert_near(without.masks.flatten(1).sum(1), recorded["eval_64x96_without_rescoring"]["mask_area"], MASK_PIXELS)
    uncropped = torch.sigmoid(prototypes @ coeffs.t()).permute(2, 0, 1)
    assert_uncropped(uncropped, labels, scores, recorded["eval_485x359_no_crop"], size_hw)


def test_quirk_one_sided_clamps():
    given = np.load(RECORDED / PLUS / "postprocess_input.npz")
    boxes = torch.from_numpy(given["box"])
    num = len(boxes)
    tracks = Tracks(
        boxes, torch.ones(num), torch.ones(num).long(), None, torch.zeros(num, 2), None, torch.zeros(num, 4, 4),
        torch.arange(num), torch.zeros(num).long(),
    )  # fmt: skip
    as_published = postprocess(tracks, meta((485, 359)), 0, one_sided=True)
    both_sides = postprocess(tracks, meta((485, 359)), 0)
    assert len(as_published) == num > len(both_sides)  # one is right of the frame
    assert as_published.boxes_px[0].tolist() == [0, 97, -17, 291]
    assert both_sides.boxes_px[0].tolist() == [0, 97, 0, 291]


def test_quirk_hidden_low_scores_class_by_class():
    for quirk, expected in ((True, None), (False, 0.05)):
        config = config_of(PLUS, **{"quirks.hidden_low_scores": quirk})
        assert make_detector(config, cross_class_nms=False).score_threshold == expected
        assert make_detector(config, cross_class_nms=True).score_threshold == expected
        assert not make_detector(config).double_tanh


# ------------------------------------------------------------------------------------------------ by hand


def test_anchors_by_hand():
    shapes = anchor_shapes_px([[10, 20], [30]], square=False)  # height, width; ratios 1, ½ (upright), 2 (lying)
    root = 2**0.5
    small = [(10, 10), (10 * root, 10 / root), (10 / root, 10 * root)]
    assert np.allclose(shapes[0], [*small, *(2 * np.array(small))])
    assert np.allclose(shapes[1], 3 * np.array(small))
    anchors = make_scaled_anchors([(1, 2), (1, 1)], [[(10, 20)], [(40, 5)]], (100, 200))
    expected = [[0.25, 0.5, 0.1, 0.1], [0.75, 0.5, 0.1, 0.1], [0.5, 0.5, 0.025, 0.4]]
    torch.testing.assert_close(anchors, torch.tensor(expected))


def test_quirk_square_anchors():
    assert np.allclose(anchor_shapes_px([[8]], square=True), [[(8, 8), (32**0.5,) * 2, (128**0.5,) * 2]])
    for quirk in (True, False):
        anchors = anchors_of(config_of(PLAIN, **{"quirks.square_anchors": quirk}), (138, 138))
        assert torch.equal(anchors[:, 2], anchors[:, 3]) is quirk


def test_mask_rescoring_takes_the_net_s_word_for_each_class():
    torch.manual_seed(0)
    net = MaskIoUNet(4)
    masks, labels = torch.rand(3, 63, 70), torch.tensor([4, 1, 2])
    with torch.inference_mode():
        dense, picked = net(masks), net.of_labels(masks, labels)
        assert dense.shape == (3, 4)
        assert torch.equal(picked, dense[[0, 1, 2], [3, 0, 1]])
        assert net.of_labels(masks[:0], labels[:0]).shape == (0,)
        torch.testing.assert_close(net(masks[1:2]), dense[1:2])
        with pytest.raises(InputError, match="at least 249 pixels"):
            net(torch.rand(1, 62, 70))


# ------------------------------------------------------------------------------------------------ tracking


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"{PLUS}_54_800000.pth"
    save_state_dict(weights(PLUS), path)
    return path


def test_the_fused_network_finds_the_same(size=288):
    model = load_model(PLUS, size)
    image = network_input("tall", (size, size))
    plain, fused = (VideoTracker(model, network=Network(model, fused=fuse)).step(image) for fuse in (False, True))
    assert len(plain) == len(fused) > 20
    assert torch.equal(plain.labels, fused.labels)
    for name, tolerance in (("boxes", 1e-4), ("scores", 5e-4), ("mask_coeffs", 5e-3), ("mask_ious", 5e-4)):
        assert_near(getattr(fused, name), getattr(plain, name).numpy(), tolerance)
    with torch.inference_mode():
        p = fused_copy(model, torch.float32, pack=True)(image[None])
        at = torch.tensor([0, 8, 9, 1234, len(p.anchors) - 1])
        assert_near(p.mask_coeffs[0, at], predictions(PLUS, size, "tall").mask_coeffs[0, at].numpy(), 1e-3)


def test_objects_are_tracked_by_masks_boxes_and_labels():
    model = load_model(PLUS, 288)
    tracker = VideoTracker(model)
    image = network_input("tall", (288, 288))
    first = tracker.step(image)
    assert first.embeddings is None and first.centerness is None
    assert (first.scores > 0.05).all()  # the class score alone
    again = tracker.step(image)
    assert len(first) > 10
    assert set(again.track_ids.tolist()) <= set(first.track_ids.tolist())
    copied = VideoTracker(model)
    copied.load_state_dict(tracker.state_dict())
    ours, theirs = tracker.step(image.flip(-1)), copied.step(image.flip(-1))
    assert torch.equal(ours.track_ids, theirs.track_ids)
    assert ours.track_ids.max() > first.track_ids.max()  # what is elsewhere is another object
    state = tracker.state_dict()
    del state["known.boxes"]
    with pytest.raises(ValueError, match="boxes is missing"):
        copied.load_state_dict(state)


def test_only_mask_rescoring_needs_a_large_input():
    with pytest.raises(InputError, match="36×36"):
        VideoTracker(load_model(PLUS, 138)).update(predictions(PLUS, 138, "wide"))
    assert type(VideoTracker(load_model(PLAIN, 138)).step(network_input("wide", (138, 138)))) is Tracks


def test_a_published_file_runs_by_its_name(checkpoint, tmp_path):
    (tmp_path / "in").mkdir()
    for name, image in (("a", "wide"), ("b", "tall")):
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), pictures()[image][..., ::-1])
    arguments = [f"--trained_model={checkpoint}", f"--images={tmp_path / 'in'}:{tmp_path / 'out'}"]
    assert evaluate([*arguments, "--score_threshold=0.3"]) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert len(results) > 3
    assert all(track["score"] > 0.3 for track in results)


def test_its_configs_cannot_be_trained_nor_get_an_fcb():
    for name in MODELS:
        if name.startswith("YOLACT"):
            with pytest.raises(InputError, match="no centerness"):
                MultiBoxLoss.from_config(get_config(name))
            with pytest.raises(InputError, match="calibration"):
                get_config(name, {"head.calibration": "ada"})
            with pytest.raises(InputError, match="each of P3"):
                get_config(name, {"head.anchor_scales": ((24,), (48,))})
    assert Counter(name.split("_")[0] for name in MODELS)["YOLACT"] == 4


# ------------------------------------------------------------------------------------------------ as a start


@pytest.mark.parametrize(
    "name, interval, taken, plain",
    [(PLUS, 2, "367 of the 405", 6), (PLUS, 1, "385 of the 405", 0), (PLAIN, 0, "346 of the 354", 0)],
)
def test_a_training_starts_from_what_fits_and_says_how_much(tmp_path, caplog, name, interval, taken, plain):
    path = tmp_path / f"{name}_54_800000.pth"
    save_state_dict(weights(name), path)
    config = get_config(f"STMask_{name.removeprefix('yolact_')}_config")
    assert config.train.pretrained == f"weights/{path.name}"
    model = STMask.from_config(get_config(config.name, {"backbone.dcn_interval": interval}))
    with caplog.at_level("INFO"):
        start_from(model, path)
    assert f"start: {taken} tensors of {path} taken" in caplog.text
    assert (f"{plain} of 13 deformable blocks are plain" in caplog.text) == (plain > 0)
    assert caplog.text.count("--set backbone.dcn_interval=1") == (plain > 0)
    ours = model.state_dict()
    same = [key for key, value in weights(name).items() if key in ours and torch.equal(ours[key], value)]
    assert len(same) == int(taken.split()[0])
    if not plain:  # the whole backbone
        assert {key for key in ours if key.startswith("backbone.")} <= set(same)
