"""The Python blocks of README.md run unchanged."""

from pathlib import Path

import numpy as np
import pytest

from data import synthetic
from data.video import VideoWriter
from tests.docs.pages import ROOT, blocks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the blocks name."""
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    Path("weights/STMask_demo.pth").symlink_to(ROOT / "weights" / "STMask_demo.pth")
    synthetic.generate("data/ShapesVIS", train_videos=1, valid_videos=1, workers=1)
    with VideoWriter(Path("in.mp4"), 5, (48, 64)) as writer:
        for shade in (0, 90, 180):
            writer.write(np.full((48, 64, 3), shade, np.uint8))


@pytest.mark.parametrize(("number", "lines"), [(0, 3), (1, None)])
def test_a_python_block_runs_as_it_stands(folder, capsys, number, lines):
    exec(blocks("README.md", "python")[number], {})
    frames = lines or len(list(Path("data/ShapesVIS/valid/JPEGImages/valid_00000").iterdir()))
    assert frames > 2 and len(capsys.readouterr().out.splitlines()) == frames
