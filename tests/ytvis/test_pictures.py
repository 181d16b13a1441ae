import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ytvis.files import InputError
from ytvis.pictures import (
    MAX_PIXELS,
    WrongSize,
    decode_labels,
    list_pictures,
    picture_size,
    read_labels,
    read_picture,
)

CUT = "cannot be decoded as a picture: its end is missing"


def photo(height=61, width=100):
    """A picture [h,w,3] uint8 RGB with smooth ground and noise, which no coder makes small."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 80, (height, width, 1))
    slope = np.linspace(0, 170, width)[None, :, None] * np.array([1.0, 0.5, 0.2])
    return (noise + slope).clip(0, 255).astype(np.uint8)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, depth, colour_type, data):
    """A PNG of its head, whatever follows from it, and `data`, not compressed yet."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def read(tmp_path, content, name="picture"):
    """`read_picture` of a file with this content and a name without suffix."""
    (tmp_path / name).write_bytes(content)
    return read_picture(tmp_path / name)


CODERS = {
    "baseline": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff_lzw": ("TIFF", {"compression": "tiff_lzw"}),
}


@pytest.mark.parametrize("name", CODERS)
def test_every_format_gives_the_pixels(tmp_path, name):
    kind, options = CODERS[name]
    seen = read(tmp_path, encoded(photo(), kind, **options))
    assert seen.dtype == np.uint8 and seen.flags.c_contiguous
    error = np.abs(seen.astype(int) - photo())
    assert error.mean() < 4 if kind == "JPEG" else not error.any()
    assert picture_size(tmp_path / "picture") == (61, 100)


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_picture_that_is_cut_off_is_refused(tmp_path, name, share):
    kind, options = CODERS[name]
    content = encoded(photo(), kind, **options)
    with pytest.raises(InputError, match=r"picture: cannot be decoded as a picture: ") as caught:
        read(tmp_path, content[: int(share * len(content))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["baseline", "progressive"])
def test_a_jpeg_is_whole_only_with_its_end(tmp_path, name):
    kind, options = CODERS[name]
    # A preview inside the head has an end of its own, as cameras write it.
    exif = b"Exif\0\0" + encoded(photo(16, 16), "JPEG")
    content = encoded(photo(), kind, exif=exif, **options)
    assert content.count(b"\xff\xd9") == 2
    for end in range(len(content) - 400, len(content)):
        with pytest.raises(InputError, match=CUT):
            read(tmp_path, content[:end])
    whole = read(tmp_path, content)
    assert np.array_equal(read(tmp_path, content + b"what a camera leaves after it"), whole)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def test_a_jpeg_that_is_cut_before_its_end_is_refused(tmp_path, mode, options):
    content = encoded(Image.fromarray(photo(120, 200)).convert(mode), "JPEG", quality=90, **options)
    read(tmp_path, content)
    head = content.index(b"\xff\xda") + 20
    for share in (0.01, 0.3, 0.6, 0.95):
        cut = content[: head + int(share * (len(content) - head))].rstrip(b"\xff")
        with pytest.raises(InputError, match="cannot be decoded as a picture: data before its end is missing"):
            read(tmp_path, cut + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_whole_jpeg_that_is_as_grey_as_missing_data_is_read(tmp_path, mode, progressive):
    grey = Image.new("RGB", (100, 61), (128,) * 3).convert(mode)
    seen = read(tmp_path, encoded(grey, "JPEG", progressive=progressive))
    assert np.ptp(seen) == 0


def test_the_first_picture_of_an_mpo_is_read(tmp_path):
    pictures = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    content = encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:], progressive=True)
    assert np.array_equal(read(tmp_path, content), read(tmp_path, encoded(photo(), "JPEG", progressive=True)))


@pytest.mark.parametrize("name", [name for name in CODERS if "tiff" not in name])
def test_bytes_after_the_end_do_not_matter(tmp_path, name):
    kind, options = CODERS[name]
    content = encoded(photo(), kind, **options)
    assert np.array_equal(read(tmp_path, content + bytes(100)), read(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(InputError, match="picture: cannot be decoded as a picture"):
        read(tmp_path, content)
    with pytest.raises(InputError, match="picture: cannot be decoded as a picture"):
        picture_size(tmp_path / "picture")


def test_a_damaged_png_is_refused(tmp_path):
    content = bytearray(encoded(photo(), "PNG"))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(InputError, match="cannot be decoded"):
        read(tmp_path, bytes(content))


# ---------------------------------------------------------------------------------------------------- kinds of pixels


def test_alpha_is_dropped(tmp_path):
    with_alpha = np.dstack([photo(), photo()[..., :1]])
    assert np.array_equal(read(tmp_path, encoded(with_alpha, "PNG")), photo())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_and_palette_pictures_become_rgb(tmp_path, mode):
    picture = Image.fromarray(photo()).convert("L").convert(mode)
    seen = read(tmp_path, encoded(picture, "PNG"))
    assert np.array_equal(seen, np.asarray(picture.convert("RGB")))
    assert np.array_equal(seen[..., 0], seen[..., 2])


def test_a_palette_with_transparent_colours(tmp_path, recwarn):
    picture = Image.fromarray(photo()).quantize(16)
    seen = read(tmp_path, encoded(picture, "PNG", transparency=bytes(range(16))))
    assert np.array_equal(seen, np.asarray(picture.convert("RGB")))
    assert not recwarn.list


def test_cmyk_jpeg(tmp_path):
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    seen = read(tmp_path, encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(seen.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_high_byte_is_taken(tmp_path, suffix, channels):
    values = photo()[..., :channels].astype(np.uint16) * 256 + 77
    _, content = cv2.imencode(suffix, values[..., ::-1])
    assert np.array_equal(read(tmp_path, content.tobytes()), np.broadcast_to(photo()[..., :channels], (61, 100, 3)))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_that_fill_the_lower_end_are_refused(tmp_path, suffix, channels):
    values = photo()[..., :channels].astype(np.uint16) * 16
    _, content = cv2.imencode(suffix, values)
    with pytest.raises(InputError, match="16 bits per channel, of which it uses the lowest 12 at most"):
        read(tmp_path, content.tobytes())
    _, black = cv2.imencode(suffix, np.zeros_like(values))
    assert not read(tmp_path, black.tobytes()).any()


def test_values_beyond_sixteen_bits_are_refused(tmp_path):
    for picture in (Image.fromarray(np.full((4, 6), 70_000, np.int32)), Image.fromarray(np.ones((4, 6), np.float32))):
        with pytest.raises(InputError, match="with 8 (or 16 )?bits per channel"):
            read(tmp_path, encoded(picture, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_several_pictures_in_a_file_are_refused(tmp_path, kind):
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    content = encoded(first, kind, save_all=True, append_images=[second])
    with pytest.raises(InputError, match="holds several pictures, as an animation does; .*mp4"):
        read(tmp_path, content)


def test_a_phone_s_further_pictures_are_passed_over(tmp_path):
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(read(tmp_path, content).astype(int) - photo()).mean() < 15


# ---------------------------------------------------------------------------------------------------- size and turns


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_tag_says(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(photo(), kind, exif=exif, **lossless)
    with Image.open(io.BytesIO(content)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    seen = read(tmp_path, content)
    assert seen.shape[:2] == picture_size(tmp_path / "picture") == ((100, 61) if orientation > 4 else (61, 100))
    assert np.abs(seen.astype(int) - expected).max() <= 2
    assert seen.flags.c_contiguous


def test_the_size_is_compared_before_anything_is_decoded(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photo(), "JPEG", exif=exif)
    path.write_bytes(content)
    assert read_picture(path, (100, 61)).shape == (100, 61, 3)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WrongSize, match=r"is 61×100 pixels \(turned as its EXIF tag says\), .* says 100×61"):
        read_picture(path, (61, 100))


def test_an_exif_tag_that_cannot_be_read_asks_for_nothing(tmp_path):
    for exif in (b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nothing"):
        assert read(tmp_path, encoded(photo(), "JPEG", exif=exif)).shape == (61, 100, 3)


@pytest.mark.parametrize("size", [(60_000, 60_000), (MAX_PIXELS // 1000 + 1, 1000), (2**31 - 1, 2**31 - 1)])
def test_a_declared_size_beyond_all_need_is_refused_before_it_is_decoded(tmp_path, recwarn, size):
    content = png(*size, depth=8, colour_type=2, data=bytes(1000))
    for function in (read_picture, picture_size, read_labels):
        (tmp_path / "bomb.png").write_bytes(content)
        with pytest.raises(InputError, match=r"bomb\.png: (declares more than 134 million pixels|cannot be decoded)"):
            function(tmp_path / "bomb.png")
    assert not recwarn.list


# ---------------------------------------------------------------------------------------------------- label pictures


def test_label_pictures_keep_their_numbers(tmp_path):
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6)
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette([5, 6, 7] * 256)
    assert np.array_equal(decode_labels(encoded(palette, "PNG"), "a"), numbers)
    assert np.array_equal(decode_labels(encoded(numbers, "PNG"), "a"), numbers)
    bits = decode_labels(encoded(Image.fromarray(numbers > 11).convert("1"), "PNG"), "a")
    assert bits.dtype == np.uint8 and np.array_equal(bits, numbers > 11)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", numbers.astype(np.uint16) * 1000)[1].tobytes())
    deep = read_labels(tmp_path / "a.png")
    assert deep.dtype == np.uint16 and np.array_equal(deep, numbers.astype(int) * 1000)


def test_label_pictures_of_colours_and_halves_are_refused():
    with pytest.raises(InputError, match=r"a: is a picture of colours \(RGB\), not of object numbers"):
        decode_labels(encoded(photo(), "PNG"), "a")
    content = encoded(photo()[..., 0], "PNG")
    with pytest.raises(InputError, match=CUT):
        decode_labels(content[: len(content) // 2], "a")


# ---------------------------------------------------------------------------------------------------- files


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, problem in [
        ("gone.png", "No such file"),
        ("pipe.png", "a pipe or a device"),
        ("folder.png", "is a folder"),
        ("loop.png", "cannot be read"),
        ("x" * 300, "cannot be read"),
        ("a\0b.png", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=problem):
            read_picture(tmp_path / name)


def test_a_folder_is_listed_in_natural_order_without_hidden_files(tmp_path):
    for name in ["10.png", "2.JPG", "1.tiff", "._2.JPG", ".hidden.png", "notes.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "linked.png").symlink_to(tmp_path / "10.png")
    assert list_pictures(tmp_path) == ["1.tiff", "2.JPG", "10.png", "linked.png"]
    assert list_pictures(tmp_path / "missing") == list_pictures(tmp_path / ("x" * 300)) == []
