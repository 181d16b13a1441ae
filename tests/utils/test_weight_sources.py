import hashlib
import io
import os
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights

from data.config import MODELS, WEIGHT_NAMES, get_config
from tests.serving import page, serving
from utils import weight_sources
from utils.checkpoint import find_checkpoint, load_state_dict
from utils.weight_sources import FROM_TORCHVISION, find_weights, is_remote, main, remote_file
from ytvis.files import InputError

HASH = "0123456789abcdef" * 4
PLUS = "yolact_plus_resnet50_54_800000"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty folder to work in, without the variables that name servers and folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("STMASK_WEIGHTS", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def no_network(monkeypatch):
    """Fails a test that downloads."""
    monkeypatch.setattr(weight_sources, "fetch", lambda remote: pytest.fail(f"downloads {remote}"))


@pytest.fixture(scope="module")
def checkpoint():
    """The bytes of a small one."""
    file = io.BytesIO()
    torch.save({"backbone.conv1.weight": torch.arange(4.0)}, file)
    return file.getvalue()


def refused(word):
    with pytest.raises(InputError) as caught:
        find_checkpoint(word, WEIGHT_NAMES, as_start=True)
    message = str(caught.value)
    assert message.isprintable()
    return message


# ---------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "word, url, target, sha256",
    [
        (
            "hf:owner/repo/a.pth",
            "https://huggingface.co/owner/repo/resolve/main/a.pth",
            "weights/huggingface/owner/repo/a.pth",
            "",
        ),
        (
            "hf:owner/repo/sub/a+b.pth@refs/pr/1",
            "https://huggingface.co/owner/repo/resolve/refs%2Fpr%2F1/sub/a%2Bb.pth",
            "weights/huggingface/owner/repo@refs_pr_1/sub/a+b.pth",
            "",
        ),
        (
            f"hf:owner/repo/a.pth@v1#sha256={HASH}",
            "https://huggingface.co/owner/repo/resolve/v1/a.pth",
            "weights/huggingface/owner/repo@v1/a.pth",
            HASH,
        ),
        (
            f"hf:dbolya/yolact-plus-resnet50/{PLUS}.pth",
            f"https://huggingface.co/dbolya/yolact-plus-resnet50/resolve/main/{PLUS}.pth",
            f"weights/{PLUS}.pth",
            "",
        ),
        (
            "https://example.org/some/STMask_r101_FCA%2BTF.pth",
            "https://example.org/some/STMask_r101_FCA%2BTF.pth",
            "weights/example.org/some/STMask_r101_FCA+TF.pth",
            "",
        ),
        (
            f"https://example.org:8443/a.pth?id=1#sha256={HASH[:8]}",
            "https://example.org:8443/a.pth?id=1",
            f"weights/example.org_8443/{hashlib.sha256(b'id=1').hexdigest()[:8]}/a.pth",
            HASH[:8],
        ),
    ],
)
def test_what_an_address_stands_for(word, url, target, sha256):
    remote = remote_file(word)
    assert (remote.url, remote.target, remote.sha256) == (url, Path(target), sha256)


@pytest.mark.parametrize("name", FROM_TORCHVISION)
def test_every_variant_of_torchvision_has_its_hash_in_its_name(name):
    variants = get_model_weights(name)
    for variant in variants:
        remote = remote_file(f"torchvision:{name}.{variant.name}")
        assert remote.url == variant.url and remote.url.startswith("https://")
        assert len(remote.sha256) == 8 and f"-{remote.sha256}.pth" in variant.url
        assert remote.target == Path("weights", variant.url.rpartition("/")[2])
    assert remote_file(f"torchvision:{name}") == remote_file(f"torchvision:{name}.{variants.DEFAULT.name}")


def test_the_hub_of_the_variables_is_asked_with_their_token(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    remote = remote_file("hf:owner/repo/a.pth")
    assert remote.url == "https://mirror.example.org/owner/repo/resolve/main/a.pth"
    assert remote.token == "secret" and "secret" not in repr(remote)
    assert remote_file("https://example.org/a.pth").token == ""


@pytest.mark.parametrize(
    "word",
    [
        *("hf:", "hf:a.pth", "hf:owner/a.pth", "hf:owner/repo/", "hf:../../a.pth", "hf:owner/repo/../a.pth"),
        *("hf:owner/repo/.a.pth", "hf:owner/repo/a.pth@..", "hf:owner/repo/a.pth#sha256=12", "hf:owner/repo/a.pth#x"),
        *("hf:owner/repo/a\n.pth", "hf:owner//a.pth", "https://example.org", "https://example.org/", "https:///a.pth"),
        *("https://example.org/../a.pth", "https://example.org/%2e%2e/a.pth", "https://example.org/a%2Fb.pth"),
        *("https://example.org/a%00.pth", "http://example.org/a.pth", "https://example.org/.a.pth"),
        *("torchvision:", "torchvision:vgg16", "torchvision:resnet50.V3", "torchvision:resnet50.DEFAULT2"),
        *("torchvision:maskrcnn_resnet50_fpn_v2.IMAGENET1K_V1", "torchvision:../a"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(word, no_network):
    assert is_remote(word)
    assert refused(word)
    assert os.listdir() == []


def test_torchvisions_weights_are_no_trained_model(no_network):
    for word in ("torchvision:resnet50", "TORCHVISION:resnet50"):
        with pytest.raises(InputError, match="train.pretrained=") as caught:
            find_checkpoint(word, WEIGHT_NAMES)
        assert str(caught.value).startswith(word)


def test_a_path_is_a_path(no_network):
    for path in ("weights/a.pth", "a.pth", Path("https://example.org/a.pth"), "C:/a.pth", "hfa.pth"):
        assert not is_remote(path)
        assert find_checkpoint(path, WEIGHT_NAMES) == Path(path)
    Path("hf:owner").touch()
    assert find_checkpoint("hf:owner", WEIGHT_NAMES) == Path("hf:owner")


# ---------------------------------------------------------------------------------------------------- the table


def test_the_starts_of_the_plus_configs_are_on_the_hub(no_network):
    for name in MODELS:
        start = get_config(name).train.pretrained
        if "_plus_" in name and start:  # a network of YOLACT's is trained elsewhere
            assert weight_sources.ON_THE_HUB[Path(start).stem].endswith("/" + Path(start).name)
            message = weight_sources.how_to_get(start)
            assert message == f"`python -m utils.weight_sources {Path(start).stem}` downloads it"


@pytest.mark.parametrize("word", [PLUS, f"{PLUS}.pth"])
def test_a_name_of_the_table_comes_from_the_hub(word, monkeypatch, checkpoint):
    with serving() as server:
        server.files[f"/dbolya/yolact-plus-resnet50/resolve/main/{PLUS}.pth"] = checkpoint
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        path = find_checkpoint(word, WEIGHT_NAMES)
        assert find_checkpoint(word, WEIGHT_NAMES) == path == Path("weights", f"{PLUS}.pth")
        assert [headers["Authorization"] for _, headers in server.requests] == ["Bearer secret"]
    assert load_state_dict(path)["backbone.conv1.weight"].tolist() == [0, 1, 2, 3]
    assert find_checkpoint(f"weights/{PLUS}.pth", WEIGHT_NAMES) == path


@pytest.mark.parametrize("word", ["STMask_r50_ada", "STMask_plus_base.pth", "yolact_plus_baseada_54"])
def test_a_name_whose_file_is_to_be_had_by_hand_says_where(word, no_network):
    name = word.removesuffix(".pth")
    message = refused(word)
    assert message.startswith(f"weights/{name}.pth: not found") and weight_sources.AUTHORS in message
    with pytest.raises(InputError, match="Google Drive"):
        load_state_dict(find_checkpoint(f"elsewhere/{name}.pth", WEIGHT_NAMES))
    Path("weights").mkdir()
    Path("weights", f"{name}.pth").touch()
    assert find_checkpoint(word, WEIGHT_NAMES) == Path("weights", f"{name}.pth")


def test_other_names_of_configs_stand_for_a_file_in_the_folder(monkeypatch):
    assert find_checkpoint("STMask_demo", WEIGHT_NAMES) == Path("weights/STMask_demo.pth")
    monkeypatch.setenv("STMASK_WEIGHTS", "kept")
    assert find_checkpoint("STMask_demo.pth", WEIGHT_NAMES) == Path("kept/STMask_demo.pth")
    Path("STMask_demo.pth").touch()
    assert find_checkpoint("STMask_demo.pth", WEIGHT_NAMES) == Path("STMask_demo.pth")


def test_what_is_in_another_folder_is_found_where_a_config_names_weights(monkeypatch):
    monkeypatch.setenv("STMASK_WEIGHTS", "kept")
    Path("kept").mkdir()
    start = Path("weights", f"{PLUS}.pth")
    assert find_checkpoint(start, WEIGHT_NAMES) == start
    Path("kept", start.name).touch()
    assert find_checkpoint(start, WEIGHT_NAMES) == Path("kept", start.name)
    assert find_checkpoint(Path("else", start.name), WEIGHT_NAMES) == Path("else", start.name)
    start.parent.mkdir()
    start.touch()
    assert find_checkpoint(start, WEIGHT_NAMES) == start


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_brings_files_and_prints_their_hashes(checkpoint, monkeypatch, capsys):
    monkeypatch.setenv("STMASK_WEIGHTS", "kept")
    digest = hashlib.sha256(checkpoint).hexdigest()
    with serving() as server:
        server.files["/a.pth"] = server.files["/o/r/resolve/main/b.pth"] = checkpoint
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert main([f"{server.url}/a.pth#sha256={digest}", "hf:o/r/b.pth"]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert first == f"kept/127.0.0.1_{server.server_port}/a.pth: 0.0 MiB, sha256 {digest}"
        assert second == f"kept/huggingface/o/r/b.pth: 0.0 MiB, sha256 {digest}"


def test_the_command_says_in_one_line_what_is_wrong(monkeypatch, capsys):
    assert main(["nothing"]) == 2
    assert capsys.readouterr().err.startswith("utils.weight_sources: error: nothing: not hf:…")
    with serving() as server:
        server.answers["/o/r/resolve/main/b.pth"] = page
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert main(["hf:o/r/b.pth"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1 and "web page" in errors[0] and "weights/huggingface/o/r/b.pth" in errors[0]


def test_a_download_is_loaded_as_any_file_is(checkpoint, monkeypatch):
    """What is no checkpoint inside, though it begins as one, is refused when it is loaded."""
    with serving() as server:
        server.files["/a.pth"] = checkpoint[: len(checkpoint) // 2]
        path = find_weights(f"{server.url}/a.pth")
    with pytest.raises(InputError, match="not a checkpoint that loads safely"):
        load_state_dict(path)
