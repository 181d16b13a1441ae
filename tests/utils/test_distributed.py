"""Several processes: what each receives from the others; losses and results do not depend on their number."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import eval as eval_command
from data.config import get_config
from data.synthetic import generate
from layers.anchors import make_anchors
from layers.losses import MultiBoxLoss
from stmask import STMask
from tests.processes import finish, start_each, torchrun
from utils.distributed import World, keep_gradients, launch, torchrun_command
from utils.structures import FrameTargets, FusionFeatures, Predictions
from ytvis.annotations import Track
from ytvis.files import InputError
from ytvis.results import ResultsJournal

CPU = torch.device("cpu")
ROWS = {0: [[1.0], [2.0]], 1: [[3.0]]}
LEAVES = ("box_deltas", "class_logits", "centerness", "mask_coeffs", "embeddings", "prototypes")
CASES = [(by_position, lonely, partly) for by_position in (True, False) for lonely, partly in ((0, 0), (1, 0), (0, 1))]
CASES.append((False, 0, 0, 4))  # clips of four frames


# ------------------------------------------------------------------------------------------------ what two processes do


def losses_of(clips, gather, by_position, lonely, partly, clip_frames=2):
    """(the losses of some of the clips of eight random images, {leaf: its gradient}); if `lonely`, images 2, 3, 6 and 7
    show nothing; if `partly`, clips 1 and 2 are of a set that does not label class 2."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(8, *shape, generator=generator)

    anchors = make_anchors([(6, 9), (3, 5)], ((3, 3), (3, 5), (5, 3)), CPU)
    shapes = ((len(anchors), 4), (len(anchors), 4), (len(anchors),), (len(anchors), 5), (len(anchors), 6), (12, 18, 5))
    values = {name: draw(*shape) for name, shape in zip(LEAVES, shapes, strict=True)}
    values["prototypes"].relu_()
    values["embeddings"] = torch.nn.functional.normalize(values["embeddings"], dim=-1)
    truths = []
    for image in range(8):
        number = 0 if lonely and image // 2 % 2 else (2, 1, 3, 0, 1, 2, 1, 1)[image]
        corners = torch.rand(number, 2, generator=generator) * 0.5
        boxes = torch.cat((corners, corners + 0.2 + torch.rand(number, 2, generator=generator) * 0.3), dim=1)
        labels = torch.randint(1, 4, (number,), generator=generator)
        masks = torch.rand(number, 24, 36, generator=generator).round()
        truths.append(FrameTargets(boxes, labels, masks, 100 * image + torch.arange(number)))
    leaves = {
        name: value.unflatten(0, (-1, clip_frames))[clips].flatten(0, 1).requires_grad_()
        for name, value in values.items()
    }
    predictions = Predictions(**leaves, anchors=anchors, fusion_features=FusionFeatures(anchors, anchors))
    criterion = MultiBoxLoss(weights_by_position=by_position, gather=gather)
    known = torch.ones(4, 4, dtype=torch.bool)
    known[1:3, 2] = False
    targets = [truths[clip_frames * clip : clip_frames * (clip + 1)] for clip in clips]
    losses = criterion(torch.nn.Identity(), predictions, targets, known[clips] if partly else None)
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}, {name: leaf.grad for name, leaf in leaves.items()}


def clips_of(*case):
    """The clips of a case."""
    return [0, 1] if case[-1] == 4 else [0, 1, 2, 3]


def work(folder):
    """The work of each of the two processes of the fixture `two`, which write down what they got."""
    with launch("cpu") as world:
        rows = torch.tensor(ROWS[world.rank], requires_grad=True)
        gathered = world.gather(rows)
        (gathered.flatten() * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
        values = torch.tensor([1.0, float("nan")]) if world.rank else torch.tensor([3.0, 1.0])
        buffer = torch.full((2,), world.rank + 5.0)
        world.broadcast_tensors([buffer])
        module = world.parallel(torch.nn.Linear(1, 1, bias=False), find_unused=False)
        with keep_gradients(module):
            module(torch.ones(1, 1)).sum().backward()
        kept = next(module.parameters()).grad.clone()
        module(torch.full((1, 1), world.rank + 1.0)).sum().backward()
        noted = {
            "gathered": gathered.detach(),
            "gradient": rows.grad,
            "nothing": world.gather(torch.zeros(0, 3)),
            "mean": world.mean(values),
            "any": [world.any(world.rank == 1), world.any(False)],
            "collected": world.collect({"rank": world.rank}),
            "broadcast": [world.broadcast(f"from {world.rank}"), buffer.tolist()],
            "shared": world.share("abcde"),
            "main": world.is_main,
            "kept": kept.item(),
            "averaged": next(module.parameters()).grad.item(),
            "losses": {case: losses_of(world.share(clips_of(*case)), world.gather, *case) for case in CASES},
        }
        torch.save(noted, folder / f"{world.rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes wrote down in `work`, by rank."""
    folder = tmp_path_factory.mktemp("two")
    finish(start_each([__file__, folder]))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_rows_are_gathered_as_they_were_dealt_out(two):
    for noted in two:
        assert noted["gathered"].tolist() == [[1], [3], [2]]
        assert noted["nothing"].shape == (0, 3)
    assert two[0]["gradient"].tolist() == [[2], [200]]  # twice, because gradients are averaged over two processes
    assert two[1]["gradient"].tolist() == [[20]]


def test_flags_means_and_objects(two):
    for rank, noted in enumerate(two):
        assert noted["mean"][0] == 2 and noted["mean"][1].isnan()
        assert noted["any"] == [True, False]
        assert noted["broadcast"] == ["from 0", [5.0, 5.0]]
        assert noted["main"] == (rank == 0)
    assert two[0]["collected"] == [{"rank": 0}, {"rank": 1}] and two[1]["collected"] is None
    assert [noted["shared"] for noted in two] == ["ace", "bd"]


def test_gradients_are_averaged_when_all_of_a_step_are_there(two):
    assert [noted["kept"] for noted in two] == [1, 1]
    assert [noted["averaged"] for noted in two] == [1 + 1.5, 1 + 1.5]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_one_process(two, case):
    expected, gradients = losses_of(clips_of(*case), World(CPU).gather, *case)
    shares = [noted["losses"][case] for noted in two]
    assert set(expected) == {"BIoU", "C", "center", "M", "T"} and all(loss > 0 for loss in expected.values())
    for name, loss in expected.items():
        torch.testing.assert_close((shares[0][0][name] + shares[1][0][name]) / 2, loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        clips = len(clips_of(*case))
        by_clip = gradient.unflatten(0, (clips, -1))
        for rank, (_, own) in enumerate(shares):
            torch.testing.assert_close(
                own[name].unflatten(0, (clips // 2, -1)) / 2, by_clip[rank::2], rtol=1e-5, atol=1e-7
            )


# ------------------------------------------------------------------------------------------------ one process


def test_one_process_is_a_world_of_its_own():
    with launch("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, CPU)
        rows = torch.ones(2, requires_grad=True)
        assert world.gather(rows) is rows
        assert not world.mean(rows).requires_grad
        assert world.any(True) and not world.any(False)
        assert world.collect("a") == ["a"] and world.broadcast("b") == "b"
        assert world.share([1, 2]) == [1, 2]
        module = torch.nn.Linear(1, 1)
        assert world.parallel(module, find_unused=True) is module and world.sync_batch_norm(module) is module
        with keep_gradients(module):
            world.barrier()
    assert not torch.distributed.is_initialized()


def test_batch_norms_are_synchronised_on_gpus_under_the_same_names(caplog):
    model = STMask(get_config("STMask_demo_config"))
    names = set(model.state_dict())
    kinds = {type(module) for module in World(CPU, 0, 2).sync_batch_norm(model).modules()}
    assert torch.nn.BatchNorm2d in kinds and "each process normalises" in caplog.text
    model = World(torch.device("cuda"), 0, 2).sync_batch_norm(model)
    kinds = {type(module) for module in model.modules()}
    assert torch.nn.SyncBatchNorm in kinds and torch.nn.BatchNorm2d not in kinds
    assert set(model.state_dict()) == names


def test_the_command_for_all_gpus_is_told_exactly(monkeypatch):
    arguments = ["--config=STMask_plus_base", "--set", "dataset.root=my data"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    expected = "torchrun --nproc_per_node=2 train.py --config=STMask_plus_base --set 'dataset.root=my data'"
    assert torchrun_command("train.py", arguments) == f"CUDA_VISIBLE_DEVICES=0,1 {expected}"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert torchrun_command("train.py", arguments) == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert torchrun_command("train.py", arguments) is None


@pytest.mark.parametrize(("device", "words"), [(None, "--nproc_per_node=1"), ("cuda:1", "--device=cuda ")])
def test_processes_without_a_gpu_each_are_bad_input(monkeypatch, device, words):
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=words), launch(device):
        pass


# ------------------------------------------------------------------------------------------------ evaluation


def test_a_journal_takes_in_that_of_another_process(tmp_path):
    entries = {video_id: [Track(video_id, 1, (None,), score=0.5)] for video_id in (1, 2, 3)}
    journal = ResultsJournal.create(tmp_path / "r.partial", {"run": 1})
    other = ResultsJournal.create(tmp_path / "r.partial.1", {"run": 1})
    for kept_by, video_ids in ((journal, (1, 2)), (other, (2, 3))):
        for video_id in video_ids:
            kept_by.append(video_id, entries[video_id], {"frames": 1})
    journal.absorb(other.path)
    assert journal.done == {1, 2, 3} and not other.path.exists()
    assert ResultsJournal.resume(journal.path, {"run": 1}).done == {1, 2, 3}
    journal.finish(tmp_path / "r.json", [3, 1, 2])
    assert [entry["video_id"] for entry in json.loads((tmp_path / "r.json").read_text())] == [3, 1, 2]
    stranger = ResultsJournal.create(tmp_path / "s.partial", {"run": 2})
    with pytest.raises(InputError, match="run"):
        ResultsJournal.create(tmp_path / "t.partial", {"run": 1}).absorb(stranger.path)
    assert stranger.path.exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three videos of four frames, without truth."""
    root = generate(tmp_path_factory.mktemp("data") / "ShapesVIS", train_videos=1, valid_videos=3, workers=1)
    path = root / "annotations" / "valid.json"
    content = json.loads(path.read_text())
    videos = [video | {"length": 4, "file_names": video["file_names"][:4]} for video in content["videos"]]
    path.write_text(json.dumps({"videos": videos, "categories": content["categories"]}))
    return root


def evaluation(data, out, *more):
    return [
        "--config=STMask_demo_config",
        "--trained_model=random",
        "--score_threshold=0",
        "--top_k=3",
        f"--mask_det_file={out}",
        "--num_workers=0",
        "--device=cpu",
        *(f"--set={key}" for key in ("input.size_hw=60,90", "tracking.score_threshold=0", f"dataset.root={data}")),
        *more,
    ]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The results of one process."""
    out = tmp_path_factory.mktemp("alone") / "results.json"
    assert eval_command.main(evaluation(data, out)) == 0
    assert {entry["video_id"] for entry in json.loads(out.read_text())} == {1, 2, 3}
    return out


def test_two_processes_write_the_identical_results(data, alone, tmp_path):
    out = tmp_path / "results.json"
    run = torchrun([Path(eval_command.__file__), *evaluation(data, out, "--display")])
    assert run.returncode == 0, run.stderr
    assert out.read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results_display"]
    assert sorted(path.name for path in (tmp_path / "results_display").iterdir()) == ["1.mp4", "2.mp4", "3.mp4"]
    assert run.stdout.count("3 videos") == 1 and "2 processes" in run.stdout  # one summary
    assert run.stderr.count("weights are random") == 1 and run.stderr.count("frames [") >= 1  # one log, one progress


def test_what_processes_had_finished_when_one_failed_is_kept(data, alone, tmp_path, capsys):
    broken = tmp_path / "ShapesVIS"
    shutil.copytree(data, broken)
    third = json.loads((broken / "annotations" / "valid.json").read_text())["videos"][2]  # the main process's second
    frame = broken / "valid" / "JPEGImages" / third["file_names"][-1]
    picture = frame.read_bytes()
    frame.unlink()
    out = tmp_path / "results.json"
    line = evaluation(broken, out)
    run = torchrun([Path(eval_command.__file__), *line])
    assert run.returncode != 0 and frame.name in run.stderr and not out.exists()
    journals = sorted(path.name for path in tmp_path.glob("results.json.*"))
    assert journals == ["results.json.partial", "results.json.partial.1"]
    assert (tmp_path / "results.json.partial").read_bytes().count(b"\n") >= 2  # the header and the first video
    frame.write_bytes(picture)
    assert eval_command.main(line) == 2  # an unfinished run is not overwritten
    assert eval_command.main([*line, "--resume"]) == 0  # with another number of processes
    assert "of 3 videos are done" in capsys.readouterr().err
    assert out.read_bytes() == alone.read_bytes()
    assert not list(tmp_path.glob("results.json.*"))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
