"""Truth and results as a score is asked of them: of some of the videos, or with all categories as one."""

from collections.abc import Sequence

from ytvis.score.ytvos import YTVOS


def restrict(tracks: YTVOS, video_ids: Sequence[int]) -> YTVOS:
    """The same videos and tracks, but only of the videos with these ids; `tracks` stays as it is."""
    wanted = set(video_ids)
    if wanted.issuperset(tracks.vids):
        return tracks
    some = tracks.with_tracks(track for track in tracks.dataset["annotations"] if track["video_id"] in wanted)
    some.dataset["videos"] = [video for video in some.dataset["videos"] if video["id"] in wanted]
    some.createIndex()
    return some


def pool_categories(tracks: YTVOS) -> YTVOS:
    """The same tracks, all of one category; those of categories that the file does not have are left out.

    They are in the order in which the official evaluator takes them with `useCats` 0, which decides between tracks with
    equal scores: by the id of their category, then as in the file. `tracks` stays as it is.
    """
    known = (track for track in tracks.dataset["annotations"] if track["category_id"] in tracks.cats)
    ordered = sorted(known, key=lambda track: track["category_id"])
    pooled = tracks.with_tracks({**track, "category_id": 1} for track in ordered)
    pooled.dataset["categories"] = [{"id": 1, "name": "any category"}]
    pooled.createIndex()
    return pooled
