"""The page that shows results beside the video: `python -m ytvis view results.json --images DIR`; see docs/viewer.md.

The way of the data: `reading` checks the files → `matching` tells what is missed, false or switched in every frame →
`content` puts a video together → `server` answers requests for it, or `export` writes the same as files → `page/` shows
it.
"""
