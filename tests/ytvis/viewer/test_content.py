import json

import cv2
import numpy as np
import pytest

from tests.ytvis.viewer.small_set import EVIL_NAME, HEIGHT, LENGTH, WIDTH, encode, in_frames, rectangle
from ytvis.drawing import track_colour
from ytvis.files import InputError
from ytvis.viewer.content import Content


def rewrite(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_the_index_names_layers_classes_and_videos(content):
    assert content.index() == {
        "layers": [
            {"kind": "prediction", "file": "ours.json"},
            {"kind": "truth", "file": "valid.json"},
            {"kind": "compare", "file": "theirs.json"},
        ],
        "categories": {"1": "circle", "2": EVIL_NAME},
        "videos": [
            {"id": 7, "name": "walk", "length": LENGTH, "tracks": 4},
            {"id": 9, "name": "gone", "length": 1, "tracks": 0},
        ],
    }


def test_a_video_holds_its_frames_tracks_and_errors(content):
    video = content.video(0)
    assert (video["width"], video["height"]) == (WIDTH, HEIGHT)
    assert video["frames"] == [f"frames/0/{frame}.png" for frame in range(LENGTH)]
    prediction, truth, compare = video["layers"]
    assert prediction["tracks"][0]["masks"] == in_frames(rectangle(4, 4, 24, 28), range(3))
    assert [track["score"] for track in prediction["tracks"]] == [0.9, 0.8, 0.3, 0.1]
    assert [track["shifted"] for track in prediction["tracks"]] == [[], [], [3], []]
    assert truth["matches"] is None and truth["tracks"][0]["score"] is None
    wrong_class = {"matched": [[2, 1]], "wrong_class": [2]}
    assert json.loads(json.dumps(prediction["matches"])) == [
        {"matched": [[0, 0], [2, 1]], "false": [3], "wrong_class": [2]},
        {"matched": [[0, 0], [2, 1]], "wrong_class": [2]},
        {"matched": [[0, 0], [2, 1]], "wrong_class": [2]},
        {**wrong_class, "missed": [0]},
        {"matched": [[1, 0]], "switched": [[1, 0]]},
        {"matched": [[1, 0]]},
    ]
    assert compare["matches"][3] == {"missed": [0, 1]}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 1, 0.25, None, None, None], [0.9, 1, 0.25, None, None, None]),
        ([0.9, 0.1], []),  # as it would be of classes
        ({"circle": 0.9}, []),
        ([0.9, "high", 0, 0, 0, 0], []),
        ([0.9, True, 0, 0, 0, 0], []),
        ([0.9, float("nan"), 0, 0, 0, 0], []),
    ],
)
def test_scores_are_one_number_or_null_a_frame_or_of_something_else(small_set, scores, expected):
    rewrite(small_set.results, lambda tracks: tracks[0].update(scores=scores))
    tracks = Content(small_set.results, small_set.images, small_set.ann_file).video(0)["layers"][0]["tracks"]
    assert [track["scores"] for track in tracks] == [expected, [], [], []]


def test_tracks_that_show_the_same_object_share_group_and_colour(content):
    video = content.video(0)
    # p0 shows the large object in three frames, p1 in two; theirs is p0; nothing of ours is left for no other.
    assert [[track["group"] for track in layer["tracks"]] for layer in video["layers"]] == [[0, 1, 2, 3], [0, 2], [0]]
    assert video["colours"] == ["#{:02x}{:02x}{:02x}".format(*track_colour(group)) for group in range(4)]


def test_what_no_prediction_shows_has_a_group_of_its_own(small_set):
    small_set.results.write_text("[]", "utf-8")
    video = Content(small_set.results, small_set.images, small_set.ann_file).video(0)
    assert [[track["group"] for track in layer["tracks"]] for layer in video["layers"]] == [[], [0, 1]]
    assert len(video["colours"]) == 2 and video["numbers"] == [0, 1]


def test_groups_have_the_track_ids_of_the_results_as_numbers_unless_they_are_not_distinct(small_set, caplog):
    def numbers_with(*track_ids):
        ids = dict(enumerate(track_ids))
        rewrite(small_set.results, lambda tracks: [track.update(track_id=ids[n]) for n, track in enumerate(tracks)])
        rewrite(small_set.compare, lambda tracks: tracks[0].update(track_id=5))
        content = Content(small_set.results, small_set.images, small_set.ann_file, small_set.compare)
        video = content.video(0)
        return video["has_ids"], [
            [video["numbers"][track["group"]] for track in layer["tracks"]] for layer in video["layers"]
        ]

    def warnings_of(path):
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{path}: ")]

    assert numbers_with(12, 7, 3, 40) == (True, [[12, 7, 3, 40], [12, 3], [12]])
    assert warnings_of(small_set.results) == []
    for not_ids in ((12, 7, 3, 12), (12, 7, 3, None), (12, 7, 3, "four"), (12, 7, 3, -1)):
        caplog.clear()
        assert numbers_with(*not_ids) == (False, [[0, 1, 2, 3], [0, 2], [0]])
        assert 1 <= len(warnings_of(small_set.results)) <= 2


def test_a_video_without_tracks_or_pictures_is_empty(content):
    video = content.video(1)
    assert video["frames"] == [None] and video["names"] == ["00000.png"] and video["colours"] == []
    assert [layer["tracks"] for layer in video["layers"]] == [[], [], []]
    assert video["layers"][0]["matches"] == [{}]


@pytest.mark.parametrize("annotations", [None, [], "absent"])
def test_without_annotations_there_is_no_truth(small_set, annotations):
    def change(content):
        if annotations == "absent":
            del content["annotations"]
        else:
            content["annotations"] = annotations

    rewrite(small_set.ann_file, change)
    content = Content(small_set.results, small_set.images, small_set.ann_file)
    assert [layer["kind"] for layer in content.index()["layers"]] == ["prediction"]
    assert content.video(0)["layers"][0]["matches"] is None


def test_masks_may_be_polygons_runs_in_a_list_or_empty(small_set):
    polygon, runs = [[2, 2, 10, 2, 10, 8, 2, 8]], {"size": [HEIGHT, WIDTH], "counts": [5, 3, WIDTH * HEIGHT - 8]}
    empty = {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}

    def change(content):
        content["annotations"] = content["annotations"][:1]
        content["annotations"][0]["segmentations"] = [polygon, runs, [], None, empty, None]

    rewrite(small_set.ann_file, change)
    masks = Content(small_set.results, small_set.images, small_set.ann_file).video(0)["layers"][1]["tracks"][0]["masks"]
    assert masks == [encode(rectangle(2, 2, 10, 8)), encode(rectangle(0, 5, 1, 8)), None, None, None, None]


# ---------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def names_in_file(small_set):
    """A function that gives the first frame of the first video another name, and returns the content."""

    def change(name):
        rewrite(small_set.ann_file, lambda content: content["videos"][0]["file_names"].__setitem__(0, name))
        return Content(small_set.results, small_set.images, small_set.ann_file)

    return change


def test_a_picture_is_found(content, small_set):
    assert content.frame_path(0, 2) == small_set.images.resolve() / "walk" / "00002.png"
    assert content.frame_path(1, 0) is None


def test_names_that_lead_out_of_the_folder_find_nothing(names_in_file, small_set):
    secret = small_set.images.parent / "secret.png"
    cv2.imwrite(str(secret), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (small_set.images / "link.png").symlink_to(secret)
    (small_set.images / "folder").symlink_to(secret.parent, target_is_directory=True)
    inside = str((small_set.images / "walk" / "00000.png").resolve())
    for name in ("../secret.png", "walk/../../secret.png", str(secret), inside, "link.png", "folder/secret.png"):
        found = names_in_file(name)
        assert found.frame_path(0, 0) is None, name
        assert found.video(0)["frames"][0] is None, name
    assert names_in_file("walk/../walk/00001.png").frame_path(0, 0) is not None


def test_what_is_no_picture_finds_nothing(names_in_file, small_set):
    (small_set.images / "notes.txt").write_text("secret", "utf-8")
    (small_set.images / "circle.png").symlink_to("circle.png")
    (small_set.images / "folder.png").mkdir()
    for name in ("notes.txt", "circle.png", "folder.png", ".", "x" * 5000 + ".png"):
        assert names_in_file(name).frame_path(0, 0) is None, name[:20]


def test_classes_that_no_track_has_are_not_on_the_page(small_set):
    categories = [{"id": number, "name": f"category {number}"} for number in range(3, 51_000)]
    rewrite(small_set.ann_file, lambda content: content["categories"].extend(categories))
    content = Content(small_set.results, small_set.images, small_set.ann_file)
    assert content.index()["categories"] == {"1": "circle", "2": EVIL_NAME}


# ---------------------------------------------------------------------------------------------------- one video


@pytest.fixture
def one_folder(small_set, tmp_path):
    """A folder of three frames whose numbers have no leading zeros, with results of one track over it."""
    folder = tmp_path / "one"
    folder.mkdir()
    for number in (10, 9, 1):
        cv2.imwrite(str(folder / f"frame{number}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (folder / "notes.txt").write_text("not a frame", "utf-8")
    track = {"video_id": 3, "category_id": 5, "score": 1, "segmentations": in_frames(rectangle(0, 0, 5, 5), [1])[:3]}
    small_set.results.write_text(json.dumps([track]), "utf-8")
    return folder


def test_without_annotation_file_a_folder_is_one_video_in_natural_order(small_set, one_folder):
    content = Content(small_set.results, one_folder)
    assert content.index()["videos"] == [{"id": 3, "name": "video 3", "length": 3, "tracks": 1}]
    assert content.video(0)["names"] == ["frame1.png", "frame9.png", "frame10.png"]
    assert content.index()["categories"] == {}


def test_results_without_tracks_still_show_the_folder(small_set, one_folder):
    small_set.results.write_text("[]", "utf-8")
    assert Content(small_set.results, one_folder).video(0)["layers"][0]["tracks"] == []


def test_several_videos_need_an_annotation_file(small_set, one_folder):
    rewrite(small_set.results, lambda entries: entries.append({**entries[0], "video_id": 4}))
    with pytest.raises(InputError, match=r"ours\.json: holds 2 videos; pass --ann_file"):
        Content(small_set.results, one_folder)


def test_a_folder_without_pictures_is_refused(small_set, one_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures there"):
        Content(small_set.results, tmp_path / "empty")


# ---------------------------------------------------------------------------------------------------- bad input


def set_first(**changes):
    return lambda entries: entries[0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_first(video_id=8), r"ours\.json: entry 0: unknown video: 8"),
        (set_first(video_id=[7]), r"entry 0: unknown video: \[7\]"),
        (set_first(category_id="1"), "entry 0 .*: the category is not an integer: '1'"),
        (set_first(score=None), "entry 0 .*: the score is not a finite number: None"),
        (set_first(score=float("nan")), "the score is not a finite number: nan"),
        (
            set_first(segmentations=[None]),
            "entry 0 .*: 'segmentations' is not as long as the video: 1 entries, the video has 6",
        ),
        (set_first(segmentations=7), "'segmentations' is not a list: 7"),
        (set_first(segmentations=["mask", *[None] * 5]), "entry 0 .*, frame 0"),
        (set_first(segmentations=[{"size": [0, 3], "counts": "054"}, *[None] * 5]), "entry 0 .*, frame 0"),
        (set_first(segmentations=[encode(np.zeros((48, 65), np.uint8)), *[None] * 5]), r"the video is \[48, 64\]"),
        (set_first(segmentations=[{"size": [48, 64], "counts": "0o"}, *[None] * 5]), "entry 0 .*, frame 0"),
        (lambda entries: entries.append(None), "entry 4: an entry is not an object: None"),
    ],
)
def test_bad_results_are_refused_in_one_line(small_set, change, message):
    rewrite(small_set.results, change)
    with pytest.raises(InputError, match=message) as error:
        Content(small_set.results, small_set.images, small_set.ann_file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("videos"), "'videos' must be a list"),
        (lambda content: content.update(videos=[]), "'videos' must be a list of at least one"),
        (lambda content: content["videos"][1].update(id=7), "video 7: a video id is used twice"),
        (lambda content: content["videos"][0].update(height=0), "video 7: width and height cannot be used"),
        (
            lambda content: content["videos"][0].update(file_names=[3]),
            "'file_names' is not a list of at least one name",
        ),
        (lambda content: content.update(categories=None), "'categories' must be a list"),
        (lambda content: content.update(annotations=5), "'annotations': a value is not a list: 5"),
        (lambda content: content["annotations"][0].update(segmentations=[None] * 7), "a list is longer than its video"),
    ],
)
def test_bad_annotations_are_refused_in_one_line(small_set, change, message):
    rewrite(small_set.ann_file, change)
    with pytest.raises(InputError, match=message) as error:
        Content(small_set.results, small_set.images, small_set.ann_file)
    assert str(error.value).startswith(str(small_set.ann_file)) and "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "message"), [("[", "not a JSON file"), ("{}", "results must be a list")])
def test_files_of_another_kind_are_refused(small_set, text, message):
    small_set.results.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        Content(small_set.results, small_set.images, small_set.ann_file)
    with pytest.raises(InputError, match="cannot be read"):
        Content(small_set.results.with_name("none.json"), small_set.images, small_set.ann_file)
