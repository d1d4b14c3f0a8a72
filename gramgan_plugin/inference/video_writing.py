"""Write a video: encode frames, and copy the other streams of its source."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.video_frames import Frame, FrameReader

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.stream import Stream

# Of a container's metadata: they are about the old file's format.
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION")


class FrameWriter:
    """Encodes the upscaled frames of a video, and copies its other streams, chapters, metadata and attachments.

    Args:
        output: the opened file.
        target: its name, for errors.
        reader: of the source; it has read the first frame.
        size: height and width of the frames.
        codec: the encoder's name.
        crf: its constant quality.

    Raises:
        UserError: if the file's format cannot hold a stream of the source.
    """

    def __init__(
        self, output: "OutputContainer", target: Path, reader: FrameReader, size: tuple[int, int], codec: str, crf: int
    ) -> None:
        from av.video.reformatter import VideoReformatter

        source, colours = reader.stream, reader.colours
        assert colours is not None
        self.output, self.reader, self.colours = output, reader, colours
        self.reformatter = VideoReformatter()
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        options = {"crf": str(crf), **({"x265-params": "log-level=error"} if codec == "libx265" else {})}
        self.stream: Any = output.add_stream(codec, rate=source.average_rate, options=options)
        context = self.stream.codec_context
        context.height, context.width = size
        context.pix_fmt = self.pixel_format = colours.pixel_format(context.codec, *size)
        context.time_base = source.time_base
        if codec == "libx265" and output.format.name != "matroska":
            context.codec_tag = "hvc1"  # QuickTime plays no other
        if aspect := source.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / aspect if reader.turns % 2 else aspect
        colours.mark(context)
        self.stream.metadata.update(_described(source.metadata))
        self.stream.disposition = source.disposition
        output.metadata.update(_described(reader.container.metadata))
        output.set_chapters(reader.container.chapters())
        for attached in reader.container.streams.attachments if output.format.name == "matroska" else ():
            output.add_attachment(attached.name or "", attached.mimetype or "", attached.data)
        self.copies = {stream.index: _copy(stream, output, target) for stream in reader.copied}
        self.durations: dict[int | None, int] = {}

    def write(self, frame: Frame) -> None:
        """Write a frame, after the packets that come with it."""
        yuv = self.colours.to_yuv(frame.pixels, self.pixel_format, self.reformatter)
        yuv.pts, yuv.time_base = frame.pts, self.reader.stream.time_base
        self.durations[frame.pts] = frame.duration
        self._copy(frame.packets)
        self._mux(self.stream.encode(yuv))

    def finish(self) -> None:
        """Write what the encoder still holds, and the packets after the last frame."""
        self._mux(self.stream.encode(None))
        self._copy(self.reader.rest)

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            packet.duration = self.durations.pop(packet.pts, packet.duration)
            self.output.mux(packet)

    def _copy(self, packets: Any) -> None:
        for packet in packets:
            packet.stream = self.copies[packet.stream.index]
            self.output.mux(packet)


def _described(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key not in _OF_THE_FILE}


def _copy(stream: "Stream", output: "OutputContainer", target: Path) -> "Stream":
    codec = stream.codec_context.codec
    if not {codec.name, codec.canonical_name} & output.supported_codecs:
        kind = f"{stream.type} in {codec.canonical_name}"
        raise UserError(f"{target}: {target.suffix} cannot hold the source's {kind}; name a file that ends in .mkv")
    copy = output.add_stream_from_template(stream)
    copy.metadata.update(_described(stream.metadata))
    copy.disposition = stream.disposition
    return copy
