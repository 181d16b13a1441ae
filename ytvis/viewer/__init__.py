"""The page that shows results beside the video: `python -m ytvis view results.json --images DIR`; see docs/viewer.md.

The flow of the data: `reading` reads the files, `video_file` the frames of a video → `matching` finds what is missed,
false or switched in every frame → `content` assembles a video → `server` answers requests for it, or `export` writes
the same as files → `page/` shows it.
"""
