"""Read a video: its frames as RGB, with the packets of sound and subtitles that lie between them."""

import itertools
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.picture_files import Samples
from gramgan_plugin.inference.video_colours import Colours
from gramgan_plugin.utils.text import printable
from gramgan_plugin.utils.threads import in_order

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

T = TypeVar("T")
_END: Any = object()
_ATTACHED_PICTURE = 0x400  # FFmpeg's disposition of a cover


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 or uint16.
        pts: when it is shown, in the stream's time base.
        duration: how long, likewise.
        packets: of other streams, which the file has before it.
    """

    pixels: Samples
    pts: int
    duration: int
    packets: tuple[Any, ...] = ()


class FrameReader:
    """Iterates over the frames of a video, once.

    Args:
        container: the opened file.
        path: its name, for errors.
        max_pixels: a video with larger frames is refused.

    Attributes:
        stream: the video stream.
        copied: streams of sound and subtitles, whose packets come with the frames.
        colours: those of the first frame, once it has been read.
        turns: by how many quarters, counterclockwise, frames are turned, likewise.
        rest: packets after the last frame, at the end.

    Raises:
        UserError: if the file has no video, or its frames are too large.
    """

    def __init__(self, container: "InputContainer", path: Path, max_pixels: int) -> None:
        streams = [stream for stream in container.streams.video if not int(stream.disposition) & _ATTACHED_PICTURE]
        if not streams:
            raise UserError(f"{path}: no video in it")
        self.container, self.path, self.stream = container, path, streams[0]
        self.stream.thread_type = "AUTO"
        known = [stream for stream in container.streams if stream.codec_context is not None]
        self.copied = [stream for stream in known if stream.type in ("audio", "subtitle")]
        self.colours: Colours | None = None
        self.turns = 0
        self.rest: list[Any] = []
        self._size = self.stream.width, self.stream.height
        self._next = 0  # the time of a frame without one
        if self._size[0] * self._size[1] > max_pixels:
            raise UserError(f"{path}: frames above the limit of {max_pixels / 1e6:.4g} million pixels")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            UserError: if the file is damaged, the size of the frames changes, or their colours cannot be converted.
        """
        from av import InvalidDataError
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()
        with explained(self.path):
            for packet in self.container.demux(self.stream, *self.copied):
                if packet.stream is not self.stream:
                    if packet.size:  # the last packet of a stream is empty
                        self.rest.append(packet)
                    continue
                try:
                    frames = packet.decode()
                except InvalidDataError:  # often before the first key frame
                    continue
                for frame in frames:
                    packets, self.rest = tuple(self.rest), []
                    yield self._converted(frame, packets, reformatter)

    def total(self) -> int:
        """Return about how many frames there are, at least 1."""
        seconds = (self.container.duration or 0) / 1_000_000
        return max(1, self.stream.frames or round(seconds * (self.stream.average_rate or 0)))

    def _converted(self, frame: "VideoFrame", packets: tuple[Any, ...], reformatter: "VideoReformatter") -> Frame:
        if self.colours is None:
            self.colours, self.turns = Colours.of(frame, self.path), round(frame.rotation / 90)
        if (frame.width, frame.height) != self._size:
            raise UserError(f"{self.path}: frames of different sizes; convert it to one size first")
        pixels = np.ascontiguousarray(np.rot90(self.colours.to_rgb(frame, reformatter), self.turns))
        duration = frame.duration or self._usual_duration()
        pts = frame.pts if frame.pts is not None and frame.pts >= self._next else self._next
        self._next = pts + 1 if frame.pts is not None else pts + duration
        return Frame(pixels, pts, duration, packets)

    def _usual_duration(self) -> int:
        rate, unit = self.stream.average_rate or self.stream.guessed_rate, self.stream.time_base
        return max(1, round(1 / (rate * unit))) if rate and unit else 1


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of FFmpeg in the block, which reads or writes ``path``, into a ``UserError``."""
    from av import FFmpegError

    try:
        yield
    except FFmpegError as error:
        reason = printable(error.strerror or type(error).__name__)
        raise UserError(f"{path}: FFmpeg: {reason[:1].lower()}{reason[1:]}") from error


def prefetched(items: Iterable[T], ahead: int) -> Generator[T]:
    """Yield items that an iterator makes in a thread of its own, at most ``ahead`` of them before they are needed."""
    iterator = iter(items)
    with closing(in_order(lambda _: next(iterator, _END), itertools.count(), workers=1, ahead=ahead)) as calls:
        for _, item in calls:
            if item is _END:
                return
            yield item
