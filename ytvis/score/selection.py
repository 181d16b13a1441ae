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
