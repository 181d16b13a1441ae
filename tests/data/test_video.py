import gc
import threading
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from data.transforms import FrameTransform
from data.video import (
    Camera,
    FrameIterable,
    SceneCuts,
    VideoFile,
    VideoWriter,
    open_source,
    read_ahead,
)
from inference.stream import read_source
from ytvis.files import InputError
from ytvis.pictures import PICTURE_SUFFIXES


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


def test_a_file_in_the_place_of_the_folder_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file: cannot be made a folder"),
        VideoWriter(tmp_path / "file" / "video.mp4", 25, (32, 32)),
    ):
        pass


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


# ------------------------------------------------------------------------------------------------ time stamps, sound


def stamps(path):
    """The frames' times in seconds, as a player has them."""
    return [round(item.time_s, 4) for item in VideoFile(path)]


def black(count=1, height=32, width=48):
    return [np.zeros((height, width, 3), np.uint8) for _ in range(count)]


def test_time_stamps_are_kept(tmp_path):
    path = tmp_path / "video.mp4"
    times = [0.5, 0.54, 0.7, 1.7, 1.7411]
    with VideoWriter(path, 30, (32, 48)) as writer:
        for frame, time_s in zip(black(5), times, strict=True):
            writer.write(frame, time_s)
    with av.open(str(path)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times, abs=1e-4)


def test_a_time_stamp_that_does_not_rise_is_moved_on(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 30, (32, 48)) as writer:
        for frame, time_s in zip(black(4), (0, 1, 1, 0.5), strict=True):
            writer.write(frame, time_s)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = [int(frame.pts * stream.time_base * 90_000) for frame in container.decode(stream)]
    assert ticks == [0, 90_000, 90_001, 90_002]


@pytest.mark.parametrize("times", [(0.0, None), (None, 0.0)])
def test_frames_with_and_without_a_time_do_not_mix(tmp_path, times):
    with pytest.raises(ValueError, match="all frames"), VideoWriter(tmp_path / "video.mp4", 30, (32, 48)) as writer:
        for frame, time_s in zip(black(2), times, strict=True):
            writer.write(frame, time_s)
    assert list(tmp_path.iterdir()) == []


def write_source(
    path, codec="libx264", sound=None, frames=None, rate=10, seconds=1.0, rotation=None, pixel_aspect=Fraction(1)
):
    """A video made with PyAV, not with the code under test; `sound` is a codec."""
    frames = moving_square(round(rate * seconds), 48, 64) if frames is None else frames
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(codec, rate=rate)
        pictures.height, pictures.width = frames[0].shape[:2]
        pictures.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        pictures.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            pictures.set_display_rotation(rotation)
        tone = container.add_stream(sound, rate=44_100, layout="mono") if sound else None
        for frame in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        if tone:
            resampler = av.AudioResampler(tone.format, "mono", 44_100, tone.frame_size or 1024)
            wave = (np.sin(np.arange(round(44_100 * seconds)) / 20) * 8000).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            samples.rate = 44_100
            for part in (*resampler.resample(samples), *resampler.resample(None), None):
                container.mux(tone.encode(part))
    return path


def sound_of(path):
    """(codec, samples [T] float as decoded, rate) of the sound of a file, or None."""
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        if stream is None:
            return None
        parts = [frame.to_ndarray().mean(axis=0) for frame in container.decode(stream)]
        return stream.codec_context.codec.canonical_name, np.concatenate(parts), stream.rate


def copy_with_sound(source, path, seconds=1.0):
    with VideoWriter(path, 10, (48, 64), audio_from=source) as writer:
        for index, frame in enumerate(moving_square(round(10 * seconds), 48, 64)):
            writer.write(frame, index / 10)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.ts", "aac"), ("a.mp4", "libmp3lame")])
def test_sound_is_copied_unchanged(tmp_path, name, codec):
    source = write_source(tmp_path / name, sound=codec)
    copy_with_sound(source, tmp_path / "out.mp4")
    theirs, ours = sound_of(source), sound_of(tmp_path / "out.mp4")
    assert ours[0] == theirs[0] and ours[2] == 44_100
    length = min(len(ours[1]), len(theirs[1]))
    assert length > 40_000
    assert np.array_equal(ours[1][:length], theirs[1][:length])


def test_sound_that_mp4_players_do_not_know_becomes_aac(tmp_path):
    source = write_source(tmp_path / "a.mkv", sound="pcm_s16le")
    copy_with_sound(source, tmp_path / "out.mp4")
    codec, samples, rate = sound_of(tmp_path / "out.mp4")
    assert codec == "aac" and rate == 48_000
    assert len(samples) == pytest.approx(48_000, abs=2048)
    middle = samples[10_000:38_000]  # the tone has 44100 / (2 π 20) periods a second
    assert np.abs(np.fft.rfft(middle)).argmax() * 48_000 / len(middle) == pytest.approx(351, abs=3)
    assert len(stamps(tmp_path / "out.mp4")) == 10


def test_sound_ends_with_the_last_frame(tmp_path):
    source = write_source(tmp_path / "a.mp4", sound="aac", seconds=3.0)
    copy_with_sound(source, tmp_path / "out.mp4", seconds=1.0)
    _, samples, rate = sound_of(tmp_path / "out.mp4")
    assert len(samples) / rate == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("kind", ["silent", "broken", "missing"])
def test_without_sound_the_pictures_are_written_all_the_same(tmp_path, kind, caplog):
    source = tmp_path / "a.mp4"
    if kind == "silent":
        write_source(source)
    elif kind == "broken":
        source.write_bytes(b"no video" * 50)
    copy_with_sound(source, tmp_path / "out.mp4")
    assert sound_of(tmp_path / "out.mp4") is None
    assert len(stamps(tmp_path / "out.mp4")) == 10
    assert ("cannot be copied" in caplog.text) is (kind != "silent")


# ------------------------------------------------------------------------------------------------ video files


def close_to(ours, theirs, levels=8):
    return ours.shape == theirs.shape and np.abs(ours.astype(int) - theirs).mean() < levels


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "libx264"), ("a.ts", "libx264"), ("a.avi", "mjpeg")],
)
def test_frames_of_a_file_come_in_order_with_their_times(tmp_path, name, codec):
    frames = moving_square(7, 48, 64)
    source = open_source(write_source(tmp_path / name, codec, frames=frames))
    assert source.num_frames in (7, None) and source.frame_rate == 10
    items = list(source)
    assert [item.index for item in items] == list(range(7))
    assert [item.time_s for item in items] == pytest.approx([index / 10 for index in range(7)], abs=1e-3)
    assert all(close_to(item.frame, frame) for item, frame in zip(items, frames, strict=True))
    assert [item.time_s for item in source] == [item.time_s for item in items]  # it can be read again


def test_a_file_of_one_frame(tmp_path):
    items = list(open_source(write_source(tmp_path / "a.mp4", frames=moving_square(1, 48, 64))))
    assert [(item.index, item.time_s, item.frame.shape) for item in items] == [(0, 0.0, (48, 64, 3))]


def test_odd_sides(tmp_path):
    frames = moving_square(2, 47, 63)
    path = write_source(tmp_path / "a.avi", "mjpeg", frames=frames)
    assert [item.frame.shape for item in open_source(path)] == [(47, 63, 3)] * 2


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_a_phone_s_video_is_turned_upright(tmp_path, degrees, turns):
    frames = moving_square(2, 48, 64)
    path = write_source(tmp_path / "a.mp4", frames=frames, rotation=degrees)
    for item, frame in zip(open_source(path), frames, strict=True):
        assert close_to(item.frame, np.rot90(frame, turns))  # anticlockwise, as FFmpeg counts
        assert item.frame.flags.c_contiguous


@pytest.mark.parametrize(("degrees", "shown"), [(None, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_pixels_that_are_not_square_stay_so_in_what_is_written(tmp_path, degrees, shown):
    path = write_source(tmp_path / "a.mp4", rotation=degrees, pixel_aspect=Fraction(4, 3))
    source = open_source(path)
    assert source.pixel_aspect == Fraction(4, 3)
    frames = [item.frame for item in source]
    assert source.pixel_aspect == shown
    with VideoWriter(tmp_path / "b.mp4", 25, frames[0].shape[:2], pixel_aspect=source.pixel_aspect) as writer:
        for frame in frames:
            writer.write(frame)
    assert open_source(tmp_path / "b.mp4").pixel_aspect == shown
    square = write_source(tmp_path / "square.mp4")
    assert open_source(square).pixel_aspect == 1


def test_a_full_disk_is_one_line_and_leaves_the_earlier_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "video.mp4"
    path.write_text("earlier")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))  # what is written beyond it fails as on a full disk
    try:
        with (
            pytest.raises(InputError, match=r"video\.mp4: cannot be written: .*; choose another place"),
            VideoWriter(path, 25, (64, 64)) as writer,
        ):
            for _ in range(100):
                writer.write(np.roll(noise, 1, axis=0))
                noise = 255 - noise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("source", ["x" * 300, "a\0b.mp4", "9" * 5000])
def test_names_that_no_file_can_have_are_refused(source):
    with pytest.raises(InputError):
        open_source(source)


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_an_animation_among_pictures_is_one_line(tmp_path, suffix):
    first, second = (Image.fromarray(np.full((8, 8, 3), grey, np.uint8)) for grey in (10, 200))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(InputError, match="holds several pictures, as an animation does"):
        list(open_source(tmp_path / f"a.{suffix}"))


def test_a_gif_is_a_video(tmp_path):
    first, second = (Image.fromarray(np.full((8, 8, 3), grey, np.uint8)) for grey in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second], duration=100)
    items = list(open_source(tmp_path / "a.gif"))
    assert [item.frame[0, 0, 0] for item in items] == [10, 200] and items[1].time_s == pytest.approx(0.1)


def test_a_mirrored_video_is_mirrored(tmp_path):
    frames = moving_square(1, 48, 64)
    path = write_source(tmp_path / "a.mp4", frames=frames)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # a, b, u, c, d, v, x, y, w
    content[matrix : matrix + 4] = (-65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    (item,) = open_source(path)
    assert close_to(item.frame, frames[0][:, ::-1])


def test_times_count_from_where_the_file_starts(tmp_path):
    path = tmp_path / "a.ts"
    with VideoWriter(tmp_path / "a.mp4", 10, (32, 48)) as writer:
        for frame, time_s in zip(black(3), (5.0, 5.1, 5.4), strict=True):
            writer.write(frame, time_s)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None:
                packet.stream = stream
                target.mux(packet)
    assert stamps(path) == pytest.approx([0, 0.1, 0.4], abs=1e-3)


@pytest.fixture
def noisy(tmp_path):
    """A video of 30 frames that compress badly, its index at the front."""
    path = tmp_path / "noisy.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 10, (48, 64)) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    return path


def frames_until_error(source):
    """(number of frames, the error's text)."""
    items = []
    with pytest.raises(InputError) as error:
        for item in source:
            items.append(item)
    assert "\n" not in str(error.value)
    return len(items), str(error.value)


def test_a_file_cut_off_gives_what_is_there_and_one_error(noisy):
    noisy.write_bytes(noisy.read_bytes()[: noisy.stat().st_size // 2])
    count, error = frames_until_error(open_source(noisy))
    assert 5 < count < 25
    assert error.startswith(f"{noisy}: broken: ") and error.endswith(f"{count} frames could be read")


def test_frames_behind_a_broken_place_are_read(noisy):
    content = bytearray(noisy.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 5000] = bytes(5000)
    noisy.write_bytes(content)
    count, error = frames_until_error(open_source(noisy))
    assert 20 < count < 30 and "Invalid data" in error


@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_a_file_that_is_no_video_is_refused_at_once(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: cannot be opened as a video"):
        open_source(path)


def test_a_file_of_sound_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        tone = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        container.mux(tone.encode(samples))
    with pytest.raises(InputError, match="has no pictures"):
        open_source(path)


def test_longer_sound_is_no_fault(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.height, pictures.width, pictures.pix_fmt = 48, 64, "yuv420p"
        tone = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 24_000), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        container.mux(tone.encode(samples))
        for frame in moving_square(3, 48, 64):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
    assert len(list(open_source(tmp_path / "a.mkv"))) == 3


# ------------------------------------------------------------------------------------------------ pictures and others


def write_pictures(folder, names):
    """Pictures of one grey each: 10, 20, 30, … in the order of `names`."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names, start=1):
        cv2.imwrite(str(folder / name), np.full((24, 32, 3), 10 * number, np.uint8))
    return folder


def greys(source):
    return [int(item.frame[0, 0, 0]) for item in source]


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = write_pictures(tmp_path / "frames", ["2.png", "10.png", "1.png"])
    (folder / "notes.txt").write_text("no picture")
    source = open_source(folder, frame_rate=5)
    assert source.num_frames == 3
    items = list(source)
    assert [item.name for item in items] == ["1.png", "2.png", "10.png"]
    assert greys(items) == [30, 10, 20]
    assert [item.time_s for item in items] == [0, 0.2, 0.4]


def test_a_glob_and_a_single_picture(tmp_path):
    folder = write_pictures(tmp_path / "frames", ["a2.png", "a10.png", "b1.png"])
    assert greys(open_source(folder / "a*.png")) == [10, 20]
    assert greys(open_source(str(folder / "b1.png"))) == [30]
    (tmp_path / "[x].png").write_bytes((folder / "b1.png").read_bytes())
    assert greys(open_source(tmp_path / "[x].png")) == [30]  # a file's name, not a pattern


def test_unreadable_pictures_are_left_out_and_told_at_the_end(tmp_path, caplog):
    folder = write_pictures(tmp_path / "frames", ["1.png", "2.png", "3.png", "4.png"])
    (folder / "2.png").write_bytes(b"no picture")
    (folder / "3.png").write_bytes(b"")
    items = []
    with pytest.raises(InputError, match=r"2\.png: cannot be decoded as a picture: .* \(and 1 more of 4 pictures\)"):
        for item in open_source(folder):
            items.append(item)
    assert [(item.index, item.name) for item in items] == [(0, "1.png"), (3, "4.png")]
    assert "3.png: cannot be decoded" in caplog.text


@pytest.mark.parametrize("source", ["missing.mp4", "frames/*.png", "nothing"])
def test_what_is_not_there_is_named(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=source.replace("*", r"\*")):
        open_source(source)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no pictures \(.*\.jpg"):
        open_source(tmp_path)
    assert ".jpg" in PICTURE_SUFFIXES


def test_an_iterable_is_fetched_frame_by_frame():
    fetched = []

    def frames():
        for index in range(5):
            fetched.append(index)
            yield np.zeros((4, 6, 3), np.uint8)

    source = open_source(frames(), frame_rate=2)
    assert isinstance(source, FrameIterable) and source.num_frames is None
    iterator = read_source(source, FrameTransform((32, 32), (0, 0, 0), (1, 1, 1), 32))
    next(iterator)
    frame = next(iterator)
    assert fetched == [0, 1]
    assert frame.meta.time_s == 0.5 and frame.meta.original_hw == (4, 6) and frame.image.shape == (32, 32, 3)
    assert list(open_source([])) == [] and open_source([]).num_frames == 0


class FakeCapture:
    """A camera that gives three pictures."""

    is_released = False

    def __init__(self, number):
        FakeCapture.number = number
        self.left = 3

    def isOpened(self):  # noqa: N802
        return self.number == 1

    def read(self):
        self.left -= 1
        return (True, np.full((4, 6, 3), (0, 0, 200), np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        FakeCapture.is_released = True


def test_a_camera_gives_rgb_and_is_released(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    source = open_source("1")
    assert isinstance(source, Camera) and isinstance(open_source(1), Camera) and source.num_frames is None
    frames = iter(source)
    first, second = next(frames), next(frames)
    assert first.frame[0, 0].tolist() == [200, 0, 0]
    assert first.time_s == 0 < second.time_s < 5
    assert not FakeCapture.is_released
    frames.close()
    assert FakeCapture.is_released
    with pytest.raises(InputError, match="camera 1 stopped after 3 pictures"):
        list(source)


def test_no_camera_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(InputError, match="camera 0 cannot be opened: check that it is connected"):
        list(open_source(0))


# ------------------------------------------------------------------------------------------------ reading ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


def test_reading_ahead_keeps_order_and_stays_within_its_bound():
    fetched = []

    def numbers():
        for number in range(50):
            fetched.append(number)
            yield number

    items = read_ahead(numbers(), size=3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(fetched) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert fetched == [0, 1, 2, 3, 4]  # one is given, three wait, one has no place
    assert list(items) == list(range(1, 50))
    assert threads() == []


def test_an_exception_comes_behind_the_item_before_it():
    def numbers():
        yield from range(3)
        raise InputError("broken")

    items = read_ahead(numbers())
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(InputError, match="broken"):
        next(items)
    assert threads() == []


@pytest.mark.parametrize("end", ["close", "drop"])
def test_closing_ends_the_thread_and_closes_the_source(end):
    closed = threading.Event()

    def numbers():
        try:
            yield from range(1000)
        finally:
            closed.set()

    items = read_ahead(numbers(), size=2)
    assert next(items) == 0
    if end == "close":
        items.close()
    else:
        del items
        gc.collect()
    assert closed.is_set() and threads() == []


def test_nothing_to_read_ahead():
    assert list(read_ahead([])) == []


# ------------------------------------------------------------------------------------------------ cuts


def test_a_cut_is_told_from_motion_and_light():
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8) // 2 + base, (160, 120)) for base in (0, 120)]
    pan = np.roll(scenes[0], 60, axis=1)
    brighter = cv2.add(scenes[0], np.full_like(scenes[0], 12))
    is_cut = SceneCuts()
    assert [is_cut(frame) for frame in (scenes[0], scenes[0], pan, scenes[0], brighter, scenes[0])] == [False] * 6
    assert is_cut(scenes[1]) and not is_cut(scenes[1])
    assert is_cut(scenes[0])
    strict = SceneCuts(threshold=1.0)
    assert [strict(frame) for frame in scenes] == [False, False]
    easy = SceneCuts(threshold=0.0)
    assert [easy(frame) for frame in scenes] == [False, True]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_threshold_that_no_cut_can_have_is_refused(threshold):
    with pytest.raises(InputError, match="must be in 0…1, not"):
        SceneCuts(threshold)


def test_cuts_are_marked_on_the_frames():
    frames = [np.full((20, 30, 3), grey, np.uint8) for grey in (10, 10, 240, 240, 10)]
    transform = FrameTransform((32, 32), (0, 0, 0), (1, 1, 1), 32)
    marked = [frame.meta.is_cut for frame in read_source(open_source(frames), transform, SceneCuts())]
    assert marked == [False, False, True, False, True]
    assert not any(frame.meta.is_cut for frame in read_source(open_source(frames), transform))
