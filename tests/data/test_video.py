from fractions import Fraction

import av
import numpy as np
import pytest

from data.video import VideoWriter


def read(path):
    """(frames [T,h,w,3] uint8 RGB, frames per second) of a video."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), container.streams.video[0].average_rate


def moving_square(count, height, width):
    """[T,h,w,3]: a red square that walks right over a smooth green-blue ground."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 1] = np.linspace(40, 200, width).astype(np.uint8)
    frames[..., 2] = np.linspace(200, 40, height).astype(np.uint8)[:, None]
    for index, frame in enumerate(frames):
        frame[8:24, 4 * index : 4 * index + 16] = (220, 30, 40)
    return frames


def test_frames_come_back_in_number_size_order_and_colour(tmp_path):
    frames = moving_square(6, 48, 64)
    path = tmp_path / "new" / "video.mp4"
    with VideoWriter(path, 12, (48, 64)) as writer:
        for frame in frames:
            writer.write(frame)
    seen, frame_rate = read(path)
    assert seen.shape == frames.shape
    assert frame_rate == 12
    # Halved chroma blurs the square's border; its middle and the ground must hold their colours.
    for index in range(6):
        middle = seen[index, 12:20, 4 * index + 4 : 4 * index + 12].reshape(-1, 3).mean(axis=0)
        assert np.abs(middle - (220, 30, 40)).max() < 6, index
    assert np.abs(seen.astype(int) - frames).mean() < 4
    assert [file.name for file in path.parent.iterdir()] == ["video.mp4"]


def test_index_stands_before_the_pictures(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 25, (32, 32)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_video_of_one_frame(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 25, (32, 48)) as writer:
        writer.write(np.full((32, 48, 3), 128, np.uint8))
    seen, _ = read(path)
    assert seen.shape == (1, 32, 48, 3)
    assert np.abs(seen.astype(int) - 128).max() <= 3


def test_odd_sides_grow_by_one_repeated_pixel(tmp_path):
    frame = np.zeros((33, 47, 3), np.uint8)
    frame[:, 24:] = 200
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 25, (33, 47)) as writer:
        writer.write(frame)
    seen, _ = read(path)
    assert seen.shape == (1, 34, 48, 3)
    assert np.abs(seen[0, :, -1].astype(int) - 200).max() <= 4
    assert np.abs(seen[0, -1, :20].astype(int)).max() <= 4


def test_broadcast_frame_rate_is_kept_exactly(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 30000 / 1001, (16, 16)) as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    assert read(path)[1] == Fraction(30000, 1001)


def test_exception_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "video.mp4", 25, (32, 32)) as writer:
        for _ in range(60):  # more than the encoder holds back, so that bytes have reached the disk
            writer.write(np.zeros((32, 32, 3), np.uint8))
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_exception_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_text("earlier")
    with pytest.raises(RuntimeError), VideoWriter(path, 25, (32, 32)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_no_frame_makes_no_file(tmp_path):
    with VideoWriter(tmp_path / "video.mp4", 25, (32, 32)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((32, 48, 3), np.uint8),
        np.zeros((48, 32), np.uint8),
        np.zeros((48, 32, 4), np.uint8),
        np.zeros((48, 32, 3), np.float32),
    ],
)
def test_frame_of_another_shape_or_type_is_refused(tmp_path, frame):
    with pytest.raises(ValueError, match="48, 32, 3"), VideoWriter(tmp_path / "video.mp4", 25, (48, 32)) as writer:
        writer.write(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame_rate", "size_hw"), [(0, (32, 32)), (float("nan"), (32, 32)), (float("inf"), (32, 32)), (25, (0, 32))]
)
def test_impossible_videos_are_refused(tmp_path, frame_rate, size_hw):
    with pytest.raises(ValueError, match="cannot be written"):
        VideoWriter(tmp_path / "video.mp4", frame_rate, size_hw)
