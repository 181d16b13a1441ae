"""The page in a headless Chromium; skipped without one."""

import base64
import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.ytvis.viewer.browser import new_page, photograph
from tests.ytvis.viewer.small_set import EVIL_NAME, HEIGHT, LENGTH, WIDTH, blob, encode, frame_picture
from tools.viewer_speed import measure, write_video
from ytvis.drawing import css_colour, track_colour
from ytvis.masks import decode_mask
from ytvis.viewer.content import Content
from ytvis.viewer.export import export_page

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
MASK_ALPHA = round(0.45 * 255)
PIXELS = """([pane, canvas]) => {
    const source = viewer.stage.panes[pane][canvas];
    const { width, height } = source ?? viewer.stage.panes[pane].picture;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    if (source) context.drawImage(source, 0, 0);
    const data = context.getImageData(0, 0, width, height).data;
    let text = "";
    for (const value of data) text += String.fromCharCode(value);
    return [width, height, btoa(text)];
}"""


@pytest.fixture
def open_page(browser):
    """A function that opens an address at a size, once the first frame is there."""
    contexts = []

    def open_at(url, options=DESKTOP):
        context = new_page(browser, **options)
        page = context.__enter__()
        contexts.append(context)
        page.goto(url)
        page.wait_for_selector("#stage[data-frame]")
        return page

    yield open_at
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def url(content, serve):
    return serve(content).url


def wait_for_frame(page, frame):
    page.wait_for_selector(f"#stage[data-frame='{frame}']")


def wait_until(page, expression):
    """Waits for a JavaScript expression; playwright's own way would need a page that allows eval."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def pixels(page, pane, canvas="picture"):
    """RGBA [height, width, 4] of a canvas: the picture with its masks, or the masks alone ("tint")."""
    width, height, text = page.evaluate(PIXELS, [pane, canvas])
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def screenshot(page):
    """RGB [height, width, 3] of what is seen of a page, or of a part of one."""
    encoded = np.frombuffer(photograph(page), np.uint8)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


def expected_tint(layer, colours, frame):
    """Masks decoded in Python, small ones over large ones: RGBA, opaque on the pixels that touch the outside."""
    tint = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    seen = [(decode_mask(track["masks"][frame]), track) for track in layer["tracks"] if track["masks"][frame]]
    for mask, track in sorted(seen, key=lambda item: -item[0].sum()):
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        tint[mask, :3] = list(bytes.fromhex(colours[track["group"]][1:]))
        tint[mask, 3] = 255
        tint[inner, 3] = MASK_ALPHA
    return tint


def position(page):
    return page.inner_text("#position")


def shown_tracks(page, layer=0):
    """Titles of the rows of a layer that are not hidden."""
    titles = page.evaluate("(layer) => viewer.video.layers[layer].tracks.map(({ title }) => title)", layer)
    rows = page.evaluate(
        """(layer) => viewer.timeline.rows.filter(({ track }) => track.layer === viewer.video.layers[layer])
            .map(({ row }) => row.checkVisibility())""",
        layer,
    )
    return [title for title, is_shown in zip(titles, rows, strict=True) if is_shown]


# ---------------------------------------------------------------------------------------------------- masks


def random_masks():
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (2, 3), (13, 7), (48, 64), (270, 33), (120, 310)]
    masks = [generator.random(shape) < density for shape in shapes for density in (0, 0.02, 0.3, 0.5, 0.97, 1)]
    for shape in ((90, 160), (540, 960)):
        noise = cv2.GaussianBlur(generator.normal(size=shape), (0, 0), shape[0] / 20)
        masks += [noise > 0, noise > noise.std(), noise > 3 * noise.std()]
    full = np.ones((1080, 1920), bool)
    return [*(mask.astype(np.uint8) for mask in masks), full.astype(np.uint8)]


def test_masks_decode_as_in_pycocotools(open_page, url):
    page = open_page(url)
    masks = random_masks()
    rles = [encode(mask) for mask in masks]
    decoded = page.evaluate(
        """(rles) => rles.map((rle) => {
            const [height, width] = rle.size;
            const pixels = new Uint32Array(height * width);
            const mask = decodeMask(rle);
            if (mask) paintMask(mask, pixels, 1, 1, 1);
            let text = "";
            for (let at = 0; at < pixels.length; at++) text += String.fromCharCode(pixels[at]);
            const { x, y, width: w, height: h } = mask?.bounds ?? { x: 0, y: 0, width: 0, height: 0 };
            return [btoa(text), [x, y, w, h], mask?.area ?? 0];
        })""",
        rles,
    )
    for mask, rle, (text, bounds, area) in zip(masks, rles, decoded, strict=True):
        found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(mask.shape)
        np.testing.assert_array_equal(found, coco_mask.decode(rle))
        assert (bounds, area) == (coco_mask.toBbox(rle).tolist(), mask.sum())


def test_masks_know_which_pixels_they_cover(open_page, url):
    page = open_page(url)
    mask = blob()
    hits = page.evaluate(
        """(rle) => {
            const mask = decodeMask(rle);
            const [height, width] = rle.size;
            const columns = Array.from({ length: width }, (_, x) => x);
            return Array.from({ length: height }, (_, y) => columns.map((x) => maskCovers(mask, x, y)));
        }""",
        encode(mask),
    )
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(np.array(hits), mask.astype(bool))


def test_counts_that_make_no_sense_do_no_harm(open_page, url):
    page = open_page(url)
    texts = ["", "0", "o", "ooooooooooooo", "0ooo", "\u2028\u00fc", "0PPPP", "01010101", "0000000000", "~~~~~~"]
    areas = page.evaluate(
        "(texts) => texts.map((counts) => decodeMask({ size: [3, 4], counts })?.area ?? 0)",
        texts,
    )
    assert all(0 <= area <= 12 for area in areas)


def test_borders_are_as_thick_as_asked(open_page, url):
    page = open_page(url)
    mask = np.zeros((9, 12), np.uint8)
    mask[1:8, 2:11] = 1
    painted = page.evaluate(
        """(rle) => {
            const pixels = new Uint32Array(9 * 12);
            paintMask(decodeMask(rle), pixels, 1, 2, 2);
            return [...pixels];
        }""",
        encode(mask),
    )
    expected = mask * 2
    expected[3:6, 4:9] = 1
    np.testing.assert_array_equal(np.reshape(painted, (9, 12)), expected)


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_pixels_of_every_mask_are_tinted_and_no_others(open_page, url, content, options):
    page = open_page(url, options)
    video = content.video(0)
    for frame in range(LENGTH):
        page.evaluate("(frame) => viewer.seek(frame)", frame)
        wait_for_frame(page, frame)
        picture = frame_picture(frame)[..., ::-1].astype(float)
        for pane, layer in enumerate(video["layers"]):
            expected = expected_tint(layer, video["colours"], frame)
            tint = pixels(page, pane, "tint")
            np.testing.assert_array_equal(tint[..., 3], expected[..., 3])
            # Canvases keep colours multiplied by their opacity, in 8 bits.
            assert np.abs(tint[..., :3].astype(int) - expected[..., :3]).max() <= 2
            opacity = expected[..., 3:] / 255
            blended = picture * (1 - opacity) + expected[..., :3] * opacity
            shown = pixels(page, pane)
            assert (shown[..., 3] == 255).all()
            np.testing.assert_array_equal(shown[tint[..., 3] == 0][:, :3], picture[tint[..., 3] == 0])
            assert np.abs(shown[..., :3] - blended).max() <= 2


def test_what_is_seen_is_the_canvas(open_page, url):
    """A screenshot, at the middle of each of the blocks of colour that the picture is made of, without labels."""
    page = open_page(url)
    for key in ("l", "e"):
        page.keyboard.press(key)
    canvas, tint = pixels(page, 0), pixels(page, 0, "tint")
    box = page.locator("#stage canvas.picture").first.bounding_box()
    image = screenshot(page)
    scale = box["width"] / WIDTH
    compared = []
    for y in range(4, HEIGHT, 8):
        for x in range(4, WIDTH, 8):
            around = canvas[y - 2 : y + 3, x - 2 : x + 3, :3].astype(int)
            if np.ptp(around, axis=(0, 1)).max() == 0:  # no border of a mask, which scaling would blur
                seen = image[round(box["y"] + (y + 0.5) * scale), round(box["x"] + (x + 0.5) * scale)]
                assert np.abs(seen.astype(int) - canvas[y, x, :3]).max() <= 3
                compared.append(tint[y, x, 3])
    assert {0, MASK_ALPHA} <= set(compared)


# ---------------------------------------------------------------------------------------------------- time


def test_buttons_keys_slider_and_bars_move_through_time(open_page, url):
    page = open_page(url)
    assert position(page) == f"0 / {LENGTH - 1}"
    for action, expected in (
        (lambda: page.click("#forward"), 1),
        (lambda: page.keyboard.press("ArrowRight"), 2),
        (lambda: page.keyboard.press("ArrowLeft"), 1),
        (lambda: page.keyboard.press("End"), 5),
        (lambda: page.keyboard.press("ArrowRight"), 5),
        (lambda: page.keyboard.press("Shift+ArrowLeft"), 0),
        (lambda: page.click("#last"), 5),
        (lambda: page.click("#back"), 4),
        (lambda: page.click("#first"), 0),
        (lambda: page.fill("#frame", "3"), 3),
        (lambda: page.keyboard.press("Home"), 0),
    ):
        action()
        wait_for_frame(page, expected)
        assert position(page) == f"{expected} / {LENGTH - 1}"
    assert page.inner_text("#frame-name") == "00000.png"
    assert page.locator(".ruler span").all_inner_texts() == ["0", "1", "2", "3", "4", "5"]
    ruler = page.locator(".ruler").bounding_box()
    page.mouse.click(ruler["x"] + ruler["width"] * 4.5 / LENGTH, ruler["y"] + 4)
    wait_for_frame(page, 4)
    page.mouse.move(ruler["x"] + ruler["width"] * 4.5 / LENGTH, ruler["y"] + 4)
    page.mouse.down()
    page.mouse.move(ruler["x"] + ruler["width"] * 2.5 / LENGTH, ruler["y"] + 4, steps=4)
    page.mouse.up()
    wait_for_frame(page, 2)


def test_it_plays_every_frame_in_a_loop_until_it_is_stopped(open_page, url):
    page = open_page(url)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => seen.push(Number(viewer.stage.element.dataset.frame)))
                .observe(viewer.stage.element, { attributeFilter: ["data-frame"] });
            viewer.speed = 30;
        }"""
    )
    page.keyboard.press("Space")
    wait_until(page, "seen.length > 8")
    page.keyboard.press("Space")
    seen = page.evaluate("seen")
    steps = {(after - before) % LENGTH for before, after in pairwise(seen)}
    assert 1 in steps and 0 not in steps  # a busy machine may leave frames out
    page.uncheck("#loop")
    page.click("#play")
    wait_until(page, "!viewer.playing && viewer.frame === 5")
    assert page.get_attribute("#play", "aria-label") == "Play"


def test_time_does_not_wait_for_frames_that_come_late(open_page, url):
    page = open_page(url)
    wait_until(page, f"viewer.store.frames.size === {LENGTH}")
    shown = page.evaluate(
        """() => {
            window.requestAnimationFrame = () => 0; // the clock is moved by hand
            const seen = [];
            const tick = (frames) => {
                viewer.tick(viewer.clock.since + (1000 * frames) / viewer.speed);
                seen.push([viewer.shown, viewer.frame, Number(document.getElementById("frame").value)]);
            };
            viewer.store.send = () => {}; // no frame is made from now on
            viewer.store.forget(4);
            viewer.play();
            for (const frames of [0.5, 1, 3.2, 4.5, 5, 6]) tick(frames);
            viewer.seek(2);
            tick(0);
            tick(1);
            viewer.pause();
            return seen;
        }"""
    )
    # Two are left out; the fifth never comes, and what is on the screen stays until there is a newer one.
    assert shown == [[frame] * 3 for frame in (0, 1, 3, 3, 5, 0, 2, 3)]


def test_the_frame_that_play_reaches_last_is_forgotten_first(open_page, url):
    page = open_page(url)
    forgotten = page.evaluate(
        """() => {
            const store = new FrameStore({ ...viewer.video, length: 100 }, () => viewer.store.wanted());
            for (let frame = 0; frame < 60; frame++) store.frames.set(frame, { bytes: 1, tints: [], picture: null });
            store.bytes = 60;
            store.current = 40;
            const order = [];
            while (store.frames.size > 30) {
                order.push(store.leastNeeded(59));
                store.forget(order.at(-1));
            }
            store.close();
            return order;
        }"""
    )
    # Those long behind, nearest first; of the sixteen before the current one, none.
    assert forgotten == [*range(23, -1, -1), *range(58, 52, -1)]


def test_frames_made_ahead_take_the_look_of_the_moment(open_page, url, content):
    page = open_page(url)
    wait_until(page, f"viewer.store.frames.size === {LENGTH}")
    page.keyboard.press("m")
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    assert page.evaluate("viewer.stage.panes[0].tint") is None
    page.keyboard.press("m")
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 2)
    video = content.video(0)
    expected = expected_tint(video["layers"][0], video["colours"], 2)
    np.testing.assert_array_equal(pixels(page, 0, "tint")[..., 3], expected[..., 3])


def test_without_a_worker_the_page_makes_the_frames_itself(open_page, url, content):
    page = open_page(url)
    page.evaluate("viewer.store.dismissWorker(), viewer.store.frames.clear(), viewer.seek(3)")
    wait_for_frame(page, 3)
    video = content.video(0)
    expected = expected_tint(video["layers"][0], video["colours"], 3)
    np.testing.assert_array_equal(pixels(page, 0, "tint")[..., 3], expected[..., 3])


def test_the_speed_has_ends(open_page, url):
    page = open_page(url)
    assert page.inner_text("#speed") == "6 fps"
    page.keyboard.press("+")
    assert page.inner_text("#speed") == "8 fps"
    for _ in range(15):
        page.keyboard.press("-")
    assert page.inner_text("#speed") == "1 fps" and page.is_disabled("#slower")


def test_a_video_is_played_at_its_own_rate(open_page, serve, small_set):
    truth = json.loads(small_set.ann_file.read_text("utf-8"))
    truth["videos"][0]["frame_rate"] = 29.97
    small_set.ann_file.write_text(json.dumps(truth), "utf-8")
    page = open_page(serve(Content(small_set.results, small_set.images, small_set.ann_file)).url)
    speeds = [page.inner_text("#speed")]
    for key in ("+", "-", "-", "PageDown"):
        page.keyboard.press(key)
        if key == "PageDown":
            wait_until(page, "viewer.video.length === 1 && viewer.shown === 0")
        speeds.append(page.inner_text("#speed"))
    assert speeds == ["29.97 fps", "30 fps", "29.97 fps", "24 fps", "6 fps"]


def test_numbers_are_the_track_ids_of_the_results(open_page, serve, small_set):
    note = "no track ids: numbered in the order of the file"
    content = Content(small_set.results, small_set.images, small_set.ann_file)
    headings = open_page(serve(content).url).locator(".layer-title").all_inner_texts()
    assert [note in heading for heading in headings] == [True, False]
    results = json.loads(small_set.results.read_text("utf-8"))
    for entry, track_id in zip(results, (12, 7, 3, 40), strict=True):
        entry["track_id"] = track_id
    small_set.results.write_text(json.dumps(results), "utf-8")
    page = open_page(serve(Content(small_set.results, small_set.images, small_set.ann_file)).url)
    assert note not in page.inner_text("#timeline")
    titles = [text.split(maxsplit=1)[0] for text in page.locator(".track .name").all_inner_texts()]
    assert titles == ["#12", "#7", "#3", "#40", "#12", "#3"]
    colours = [css_colour(track_colour(number)) for number in (12, 7, 3, 40, 12, 3)]
    assert page.evaluate("viewer.timeline.rows.map(({ track }) => track.colour)") == colours
    page.keyboard.press("End")
    wait_for_frame(page, 5)
    page.keyboard.press("[")
    wait_for_frame(page, 4)
    assert "#7 circle, was #12" in page.inner_text("#now")


def test_the_address_keeps_the_place(open_page, url):
    page = open_page(f"{url}#video=7&frame=4")
    assert position(page) == f"4 / {LENGTH - 1}"
    wait_for_frame(page, 4)
    page.keyboard.press("PageDown")
    wait_until(page, "location.hash === '#video=9&frame=0'")
    assert page.title().startswith("gone")
    assert page.inner_text("#frame-name") == "00000.png (missing)"
    for nonsense in ("#video=1&frame=2", "#frame=x", "#video=7&frame=99", "#%"):
        other = open_page(url + nonsense)
        assert other.inner_text("#problem") == ""


# ---------------------------------------------------------------------------------------------------- large videos


@pytest.fixture
def large_url(tmp_path, serve):
    """A 1080p video with two tracks."""
    ann_file, results = write_video(tmp_path, num_tracks=2, num_frames=2)
    return serve(Content(results, tmp_path, ann_file)).url


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_bitmaps_have_the_size_on_the_screen(open_page, large_url, tmp_path, options):
    page = open_page(large_url, options)
    tint, canvas = pixels(page, 0, "tint"), pixels(page, 0)
    box = page.locator("#stage canvas.picture").bounding_box()
    ratio = options.get("device_scale_factor", 1)
    height, width = tint.shape[:2]
    assert canvas.shape == tint.shape
    assert abs(width - ratio * box["width"]) <= 1 and abs(height - ratio * box["height"]) <= 1 and width < 1100
    # Borders are mixed: what is far from them is as in the masks, scaled.
    entries = json.loads((tmp_path / "results.json").read_text("utf-8"))
    union = np.any([decode_mask(entry["segmentations"][0]) for entry in entries], axis=0).astype(np.uint8)
    covered = cv2.resize(255 * union, (width, height), interpolation=cv2.INTER_AREA)
    assert (tint[covered == 0][:, 3] == 0).mean() > 0.999
    assert (tint[covered == 255][:, 3] >= MASK_ALPHA - 2).mean() > 0.999
    picture = cv2.imread(str(tmp_path / "video" / "00000.jpg"))[..., ::-1]
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    away = cv2.dilate(covered, np.ones((5, 5), np.uint8)) == 0
    assert np.abs(canvas[away][:, :3] - small[away]).mean() < 3


def test_a_picture_that_gets_larger_is_made_anew(open_page, large_url):
    page = open_page(large_url, {"viewport": {"width": 900, "height": 500}})
    before = pixels(page, 0).shape[1]
    page.set_viewport_size({"width": 1900, "height": 1000})
    wait_until(page, f"viewer.stage.panes[0].picture.width > {before + 200}")
    box = page.locator("#stage canvas.picture").bounding_box()
    assert abs(pixels(page, 0).shape[1] - box["width"]) <= 1


@pytest.mark.slow
def test_thirty_tracks_in_1080p_leave_time_for_thirty_frames_a_second(browser, tmp_path, serve):
    """In processor time, which other work on the machine does not change."""
    ann_file, results = write_video(tmp_path, num_tracks=30, num_frames=30)
    url = serve(Content(results, tmp_path, ann_file)).url
    _, played_before = measure(browser, url, num_frames=30, speed=10)
    assert played_before.left_out < 0.5
    assert played_before.main_ms < 1000 / 60
    assert played_before.browser_ms < 2000 / 50


# ---------------------------------------------------------------------------------------------------- tracks


def test_bars_have_gaps_and_are_thin_where_a_track_was_carried_on(open_page, url):
    page = open_page(url)
    bars = page.evaluate(
        """viewer.timeline.rows.filter(({ track }) => track.layer === viewer.video.layers[0])
            .map(({ row }) => [...row.querySelectorAll("svg > rect")].map((bar) =>
                ["x", "width", "height"].map((key) => Number(bar.getAttribute(key)))))"""
    )
    assert bars == [[[0, 3, 6]], [[4, 2, 6]], [[0, 3, 6], [3, 1, 2]], [[0, 1, 6]]]
    label = page.get_attribute(".track >> nth=1", "aria-label")
    assert label == "#1 circle, score 0.80, frames 4–5"


@pytest.fixture
def scored_url(small_set, serve):
    """The small set, of which the large track p0 has the scores 1, 0.5 and 0, and p2 is carried on in frame 3."""
    tracks = json.loads(small_set.results.read_text("utf-8"))
    tracks[0]["scores"] = [1, 0.5, 0, None, None, None]
    tracks[2]["scores"] = [0.25, 0.25, None, 0.75, None, None]
    small_set.results.write_text(json.dumps(tracks), "utf-8")
    return serve(Content(small_set.results, small_set.images, small_set.ann_file)).url


def bar_pixels(page, row):
    """What the bar of a row looks like, RGB [height, width, 3], and for each frame which pixels down its middle have
    the very colour of the track."""
    bar = page.locator("svg.bar[aria-hidden]").nth(row)
    picture = screenshot(bar)
    colour = list(bytes.fromhex(page.evaluate("(row) => viewer.timeline.rows[row].track.colour", row)[1:]))
    middles = ((np.arange(LENGTH) + 0.5) * picture.shape[1] / LENGTH).astype(int)
    return picture, [(np.abs(picture[:, x].astype(int) - colour) <= 2).all(axis=1) for x in middles]


@pytest.mark.parametrize("options", [DESKTOP, PHONE])
def test_bars_are_as_high_as_the_score_of_each_frame(open_page, scored_url, options):
    page = open_page(scored_url, options)
    page.evaluate("viewer.seek(5)")  # the cursor and the marks of errors would lie over what is measured
    wait_for_frame(page, 5)
    page.evaluate("viewer.toggle('errors')")
    picture, solid = bar_pixels(page, 0)
    height = len(picture)
    assert [is_solid.sum() / height for is_solid in solid[:3]] == pytest.approx([0.64, 0.32, 0], abs=2.5 / height)
    assert np.flatnonzero(solid[1])[0] == pytest.approx(height / 2, abs=1.5)  # 0.5 reaches the middle
    ground = picture[1, 1].astype(int)
    above = picture[height // 4, picture.shape[1] * 3 // 12].astype(int)  # over the half-high frame the pale band
    below = picture[height * 3 // 4, picture.shape[1] * 3 // 12].astype(int)
    assert 40 < np.abs(above - ground).sum() < np.abs(below - ground).sum() / 2
    assert not any(is_solid.any() for is_solid in solid[3:])

    picture, solid = bar_pixels(page, 2)
    assert solid[0].sum() / height == pytest.approx(0.16, abs=2.5 / height)
    assert solid[2].sum() / height == pytest.approx(0.6, abs=2.5 / height)  # unknown: as without scores
    line = np.flatnonzero(solid[3])  # carried on: a line, as high as its score, and no band
    assert 1 <= len(line) <= 3 * options.get("device_scale_factor", 1)
    assert line.mean() / height == pytest.approx(0.82 - 0.64 * 0.75, abs=2 / height)
    x = picture.shape[1] * 7 // 12
    below = picture[round(0.6 * height) : round(0.8 * height), x].astype(int)
    assert np.abs(below - picture[1, x]).max() <= 2
    assert page.evaluate("document.documentElement.scrollWidth") == options["viewport"]["width"]


def test_the_score_of_a_frame_is_said_where_it_is_known(open_page, scored_url):
    page = open_page(scored_url)
    labels = [page.get_attribute(f".track >> nth={row}", "aria-label") for row in (0, 1, 2)]
    assert labels[0] == "#0 circle, score 0.90, from 0.00 to 1.00, frames 0–2"
    assert labels[1] == "#1 circle, score 0.80, frames 4–5"
    assert labels[2] == "#2 circle, score 0.30, from 0.25 to 0.75, frames 0–3"
    texts = "([track, frame]) => tagTexts(viewer.video.layers[0].tracks[track], frame)[0]"
    said = [page.evaluate(texts, place) for place in ([0, 1], [0, 2], [1, 4], [2, 2])]
    assert said == ["#0 circle 0.50", "#0 circle 0.00", "#1 circle 0.80", "#2 circle 0.30"]

    box = page.locator("svg.bar[aria-hidden]").nth(2).bounding_box()
    tooltips = []
    for frame in (1, 2, 3, 4):
        page.mouse.move(box["x"] + box["width"] * (frame + 0.5) / LENGTH, box["y"] + box["height"] / 2)
        tooltips.append(page.locator("svg.bar[aria-hidden]").nth(2).locator("title").text_content())
    assert tooltips == [
        "#2 circle, frame 1, score 0.25",
        "#2 circle, frame 2",
        "#2 circle, frame 3, score 0.75, not detected, carried on",
        "#2 circle, frame 4, not seen",
    ]
    page.click("#help-button")
    assert page.is_visible("#help-scores") and page.is_visible("#help-shifted")


@pytest.mark.usefixtures("scored_url")
def test_without_truth_the_list_says_the_scores_of_the_frame(open_page, serve, small_set):
    page = open_page(serve(Content(small_set.results, small_set.images / "walk")).url)
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    assert [text.split()[-1] for text in page.locator("#now li").all_inner_texts()] == ["0.50", "0.25"]


def test_the_cursor_does_not_cross_the_headings_of_the_bars(open_page, url):
    page = open_page(url, PHONE)

    def seen(frame):
        page.evaluate("(frame) => viewer.seek(frame)", frame)
        wait_for_frame(page, frame)
        # Its last rows of pixels are partly those of the next row of bars.
        return [screenshot(page.locator(f"{part} >> nth=0"))[:-3] for part in (".layer-title", ".ruler")]

    seen(0)  # scrolls there
    (heading, ruler), (other_heading, other_ruler) = seen(1), seen(4)
    assert np.array_equal(heading, other_heading) and not np.array_equal(ruler, other_ruler)


def test_a_click_on_a_mask_or_a_bar_follows_the_object(open_page, url):
    page = open_page(url)
    box = page.locator(".screen").first.bounding_box()
    x, y = box["x"] + box["width"] * 12 / WIDTH, box["y"] + box["height"] * 12 / HEIGHT
    page.mouse.click(x, y)
    assert page.locator(".track[aria-pressed=true]").count() == 3  # ours, the truth, theirs
    before = pixels(page, 0, "tint")
    assert before[12, 12, 3] == MASK_ALPHA and before[40, 54, 3] == round(0.25 * 0.45 * 255)
    page.mouse.click(x, y)
    assert page.locator(".track[aria-pressed=true]").count() == 0
    page.mouse.click(box["x"] + 3, box["y"] + 3)  # no mask there
    assert page.locator(".track[aria-pressed=true]").count() == 0

    bar = page.locator("svg.bar[aria-hidden]").nth(1).bounding_box()
    page.mouse.click(bar["x"] + bar["width"] * 4.5 / LENGTH, bar["y"] + 5)
    wait_for_frame(page, 4)
    assert page.locator(".track[aria-pressed=true]").inner_text().split() == ["#1", "circle", "0.80"]
    page.keyboard.press("Escape")
    assert page.locator(".track[aria-pressed=true]").count() == 0

    page.locator(".track").first.focus()
    page.keyboard.press("Enter")  # not seen in this frame: goes to its first
    wait_for_frame(page, 0)
    assert page.locator(".track[aria-pressed=true]").count() == 3


def test_filters_hide_tracks_from_pictures_and_bars(open_page, url):
    page = open_page(url)
    everything = [f"#{number} {name}" for number, name in enumerate(["circle", "circle", "circle", EVIL_NAME])]
    assert shown_tracks(page) == everything
    page.fill("#min-score", "0.5")
    assert shown_tracks(page) == everything[:2]
    assert shown_tracks(page, 1) == ["#0 circle", f"#2 {EVIL_NAME}"]  # the truth has no scores
    assert pixels(page, 0, "tint")[40, 54, 3] == 0
    assert page.inner_text("#filtered") == "2 of 7 tracks hidden"
    page.fill("#min-length", "3")
    assert shown_tracks(page) == everything[:1]
    page.click("#reset-filters")
    assert shown_tracks(page) == everything and page.inner_text("#filtered") == ""
    page.get_by_label("circle", exact=True).uncheck()
    assert shown_tracks(page) == everything[3:] and shown_tracks(page, 1) == [f"#2 {EVIL_NAME}"]


def test_errors_are_marked_and_can_be_gone_to(open_page, url):
    page = open_page(url)

    def errors():
        return [text.split("\n")[0:2] for text in page.locator("#now li button").all_inner_texts()]

    def lanes():
        return [int(text) for text in page.locator(".lane .count").all_inner_texts()]

    assert errors() == [
        ["False", f"#3 {EVIL_NAME}"],
        ["Class", f"#2 circle, is {EVIL_NAME}"],
        ["Missed", f"#2 {EVIL_NAME}"],
    ]
    # Of each file: missed, false, switched, of another class.
    assert lanes() == [1, 1, 1, 4, 7, 0, 0, 0]
    page.keyboard.press("End")
    wait_for_frame(page, 5)
    page.keyboard.press("[")
    wait_for_frame(page, 4)
    assert ["Switched", "#1 circle, was #0"] in errors()
    page.click("#previous-error")
    wait_for_frame(page, 3)
    # A filter that hides p2 makes its object missed in four frames, and p2 itself no error.
    page.fill("#min-score", "0.5")
    assert lanes() == [5, 0, 1, 0, 7, 0, 0, 0]
    page.keyboard.press("e")
    assert page.locator(".lane").first.is_hidden()


def test_panes_can_be_hidden(open_page, url):
    page = open_page(url)
    assert page.locator(".pane:visible").count() == 3
    page.get_by_role("checkbox", name="Truth").uncheck()
    assert page.locator(".pane:visible").count() == 2
    assert page.locator("#stage").get_attribute("data-panes") == "2"


def test_names_are_text(open_page, url):
    page = open_page(url)
    assert page.title() == "walk – STMask viewer"
    assert EVIL_NAME in page.inner_text("#classes")
    assert page.locator("main img").count() == 0


def test_results_alone_show_what_was_found(open_page, serve, small_set, tmp_path):
    annotations = json.loads(small_set.ann_file.read_text("utf-8"))
    del annotations["annotations"]
    small_set.ann_file.write_text(json.dumps(annotations), "utf-8")
    page = open_page(serve(Content(small_set.results, small_set.images, small_set.ann_file)).url)
    assert page.locator(".pane").count() == 1 and page.locator(".lane").count() == 0
    found = [text.split("\n") for text in page.locator("#now button").all_inner_texts()]
    assert found == [["#0 circle 0.90"], ["#2 circle 0.30"], [f"#3 {EVIL_NAME} 0.10"]]
    assert page.is_hidden("#error-buttons")


def test_an_empty_video_without_pictures_is_shown(open_page, url):
    page = open_page(f"{url}#video=9")
    assert position(page) == "0 / 0"
    assert page.inner_text("#now") == "No errors."
    assert (pixels(page, 0) == 0).all()
    page.keyboard.press("Space")
    page.keyboard.press("Space")


# ---------------------------------------------------------------------------------------------------- people


def test_help_opens_and_closes(open_page, url):
    page = open_page(url)
    page.keyboard.press("?")
    assert page.is_visible("#help") and page.is_visible("#help-errors") and page.is_visible("#help-shifted")
    assert not page.is_visible("#help-scores")  # no file has them
    page.keyboard.press("ArrowRight")
    assert position(page) == f"0 / {LENGTH - 1}"  # the keys are the dialog's
    page.keyboard.press("Escape")
    assert page.is_hidden("#help")


def test_every_control_has_a_name_and_is_reached_by_tab(open_page, url):
    page = open_page(url)
    names = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"video", "help-button", "play", "frame", "min-score", "min-length", "label track"} <= names
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, [role=img]")].filter((element) =>
            element.checkVisibility() && !element.closest("[aria-hidden=true]") && !(element.getAttribute("aria-label")
                || element.labels?.[0]?.textContent.trim() || element.textContent.trim())).map((e) => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, url, scheme):
    page = open_page(url, {**DESKTOP, "color_scheme": scheme})
    colours = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const names = ["ground", "surface", "raised", "text", "quiet", "control", "accent", "on-accent",
                "missed", "false", "switched", "wrong_class"];
            return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
        }"""
    )

    def luminance(name):
        channels = np.array(list(bytes.fromhex(colours[name][1:]))) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for name in ("text", "quiet", "missed", "false", "switched", "wrong_class"):
        assert contrast(name, "surface") >= 4.5, name
    for name in ("text", "quiet"):
        assert min(contrast(name, "ground"), contrast(name, "raised")) >= 4.5, name
    assert contrast("on-accent", "accent") >= 4.5
    assert min(contrast("control", "surface"), contrast("accent", "surface")) >= 3


def test_a_phone_shows_everything_in_its_width(open_page, url):
    page = open_page(url, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(
        "[...document.querySelectorAll('main *')].every((e) => e.getBoundingClientRect().right <= 390)"
    )
    small = page.evaluate(
        """[...document.querySelectorAll(".transport button, header button")].filter((button) => {
            const { width, height } = button.getBoundingClientRect();
            return button.checkVisibility() && (width < 40 || height < 40);
        }).length"""
    )
    assert small == 0
    assert not page.evaluate("document.getElementById('filters').open")


def test_a_finger_follows_plays_and_scrubs(open_page, url):
    page = open_page(url, PHONE)
    box = page.locator(".screen").first.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 12 / WIDTH, box["y"] + box["height"] * 12 / HEIGHT)
    assert page.locator(".track[aria-pressed=true]").count() == 3
    page.tap("#forward")
    wait_for_frame(page, 1)
    session = page.context.new_cdp_session(page)

    def touch(kind, x):
        points = [] if kind == "touchEnd" else [{"x": x, "y": box["y"] + 40}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    left, width = box["x"], box["width"]
    touch("touchStart", left + 10)
    for part in (0.1, 0.3, 0.5, 0.6):
        touch("touchMove", left + 10 + part * width)
    touch("touchEnd", 0)
    wait_until(page, "viewer.frame > 2")
    assert page.locator(".track[aria-pressed=true]").count() == 3  # a drag is no tap


# ---------------------------------------------------------------------------------------------------- files


def test_the_page_as_files_needs_no_server_and_no_network(open_page, content, tmp_path, browser):
    index = export_page(content, tmp_path / "a page")
    page = open_page(index.as_uri() + "#video=7&frame=1")
    page.context.set_offline(True)
    assert position(page) == f"1 / {LENGTH - 1}"
    video = content.video(0)
    np.testing.assert_array_equal(
        pixels(page, 0, "tint")[..., 3], expected_tint(video["layers"][0], video["colours"], 1)[..., 3]
    )
    for key in ("l", "e", "m"):
        page.keyboard.press(key)
    box = page.locator("#stage canvas.picture").first.bounding_box()
    scale = box["width"] / WIDTH
    image, picture = screenshot(page), frame_picture(1)[..., ::-1]
    for y, x in ((4, 4), (20, 12), (44, 60)):
        seen = image[round(box["y"] + (y + 0.5) * scale), round(box["x"] + (x + 0.5) * scale)]
        assert np.abs(seen.astype(int) - picture[y, x]).max() <= 3
    page.keyboard.press("PageDown")
    wait_until(page, "viewer.place === 1 && viewer.shown === 0")


def test_data_that_are_missing_are_said_to_be(browser, content, tmp_path):
    index = export_page(content, tmp_path / "page")
    (index.parent / "data" / "video-0.js").unlink()
    with pytest.raises(AssertionError), new_page(browser) as page:  # for the file that is not found
        page.goto(index.as_uri())
        page.wait_for_selector("#problem:visible")
        assert "data/video-0.js" in page.inner_text("#problem")
