"""Copies the sound of one file into another while that is written."""

import logging
import os
from collections.abc import Iterator

import av

logger = logging.getLogger(__name__)

# What players support in an mp4 file; anything else becomes AAC. (FFmpeg calls the decoder of MP3 mp3float.)
_COPIED_CODECS = frozenset(("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "flac", "opus"))
_RATE_OF_TRANSCODED = 48_000  # Hz, the usual rate of AAC beside pictures


class AudioCopy:
    """Copies the best audio track of the file `path` into `output`, an mp4 container whose header is not yet written.

    A codec that mp4 players do not support is transcoded to AAC. A file without sound adds nothing; sound that
    cannot be read, or only in part, is logged. Without a `path` nothing is copied.
    """

    def __init__(self, path: str | os.PathLike | None, output: av.container.OutputContainer):
        self._path = path
        self._packets: Iterator[tuple[float, av.Packet]] = iter(())
        self._waiting: tuple[float, av.Packet] | None = None
        self._output = output
        self._input = None
        if path is None:
            return
        try:
            self._input = av.open(str(path))
            source = self._input.streams.best("audio")
            if source is not None:
                self._packets = self._prepare(source)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._give_up(error)

    def copy_until(self, time_s: float) -> None:
        """Writes the sound before `time_s`, in seconds since the start of the file."""
        try:
            while self._waiting is not None or (packet := next(self._packets, None)) is not None:
                self._waiting = self._waiting or packet
                if self._waiting[0] >= time_s:
                    return
                self._output.mux(self._waiting[1])
                self._waiting = None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the source file."""
        if self._input is not None:
            self._input.close()

    def _give_up(self, error: Exception) -> None:
        logger.warning("%s: the sound cannot be copied, or only in part: %s", self._path, error)
        self._packets, self._waiting = iter(()), None

    def _prepare(self, source: av.AudioStream) -> Iterator[tuple[float, av.Packet]]:
        """Adds a track to the output; returns its packets with their times in seconds, to be written in order."""
        if source.codec_context.name in _COPIED_CODECS:
            return self._copied(source, self._output.add_stream_from_template(source))
        layout = "mono" if source.layout.nb_channels == 1 else "stereo"
        target = self._output.add_stream("aac", rate=_RATE_OF_TRANSCODED, layout=layout)
        return self._transcoded(source, target)

    def _copied(self, source: av.AudioStream, target: av.AudioStream) -> Iterator[tuple[float, av.Packet]]:
        start = round((self._input.start_time or 0) / av.time_base / source.time_base)
        for packet in self._input.demux(source):
            if packet.pts is None:  # the end of the file
                continue
            packet.pts -= start
            packet.dts = packet.pts
            packet.stream = target
            yield float(packet.pts * source.time_base), packet

    def _transcoded(self, source: av.AudioStream, target: av.AudioStream) -> Iterator[tuple[float, av.Packet]]:
        start = round((self._input.start_time or 0) / av.time_base / source.time_base)
        resampler = av.AudioResampler(target.format, target.layout, target.rate, target.frame_size or 1024)
        for frame in self._input.decode(source):
            frame.pts -= start
            for part in resampler.resample(frame):
                yield from ((float(packet.pts * packet.time_base), packet) for packet in target.encode(part))
        for part in (*resampler.resample(None), None):
            yield from ((float(packet.pts * packet.time_base), packet) for packet in target.encode(part))
