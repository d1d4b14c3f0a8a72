"""Upscale videos by PyAV: frames pass through the network; their times, sound, subtitles and chapters are kept."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gramgan_plugin.data.photo_headers import PhotoError, open_regular
from gramgan_plugin.data.photos import MAX_PIXELS
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.inputs import Job
from gramgan_plugin.inference.jobs import Summary, reason_of
from gramgan_plugin.inference.picture_batches import Upscale, upscale_exactly
from gramgan_plugin.inference.resize import scaled_size
from gramgan_plugin.inference.video_frames import Frame, FrameReader, explained, prefetched
from gramgan_plugin.inference.video_writing import FrameWriter
from gramgan_plugin.utils.io import real_path, replacing
from gramgan_plugin.utils.progress import tracked_of
from gramgan_plugin.utils.threads import in_order

if TYPE_CHECKING:
    from av.container import OutputContainer

CODECS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9")  # encoders with a constant quality, `crf`
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Only files that hold all their data: a playlist could name other files, or addresses.
_SAFELY = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,dv",
    "protocol_whitelist": "file",
}


@dataclass(frozen=True)
class VideoSettings:
    """How videos are upscaled and written.

    Attributes:
        scale: side of a result divided by side of its input.
        batch_size: frames that are upscaled at once.
        codec: one of ``CODECS``; the first that PyAV has if None.
        crf: the codec's constant quality: 0 is the best, 51 or 63 the worst.
        skip_existing: leave out videos whose result exists.
        max_pixels: videos with larger frames are refused.
        show: report the progress.

    Raises:
        UserError: if a value is out of its range.
    """

    scale: float
    batch_size: int = 1
    codec: str | None = None
    crf: int = 17
    skip_existing: bool = False
    max_pixels: int = MAX_PIXELS
    show: bool = True

    def __post_init__(self) -> None:
        if self.codec not in (None, *CODECS):
            raise UserError(f"--codec {self.codec!r}: must be one of {', '.join(CODECS)}")
        if not 0 <= self.crf <= 63:
            raise UserError(f"--crf {self.crf}: must be from 0 to 63")


def run_videos(jobs: Sequence[Job], upscale: Upscale, settings: VideoSettings, summary: Summary) -> None:
    """Upscale videos one after the other; what fails is recorded, and the rest goes on.

    Args:
        jobs: from ``find_inputs``, videos only.
        upscale: see :func:`upscale_video`.
        settings: see there.
        summary: where the results are counted.

    Raises:
        UserError: if PyAV or the encoder is missing, or the disk is full or read-only.
    """
    if jobs:
        _encoder(settings.codec)
    for job in jobs:
        if settings.skip_existing and not job.problem and job.target.exists():
            summary.skipped += 1
            continue
        try:
            if job.problem:
                raise UserError(job.problem)
            summary.megapixels += upscale_video(job.source, job.target, upscale, settings) / 1e6
            summary.written += 1
        except Exception as error:
            reason = reason_of(error)
            if reason is None:
                raise
            summary.fail(job.source, reason)


def upscale_video(source: Path, target: Path, upscale: Upscale, settings: VideoSettings) -> int:
    """Upscale a video's frames; copy its sound, subtitles, chapters and attachments.

    Frames keep their times, also at a variable rate, and their colour matrix, range and depth (above 8 bits as 10).
    They are turned as the file says. Packets that cannot be decoded are left out, as players do. Reading and encoding
    run in threads beside ``upscale``, which is called in this thread.

    Args:
        source: the video.
        target: an MP4, MOV or MKV file; written atomically.
        upscale: takes (H, W, 3) RGB arrays of one size and type, uint8 or uint16, and returns them
            ``settings.scale`` times as large.
        settings: see there.

    Returns:
        The pixels of all frames written.

    Raises:
        UserError: if PyAV or the encoder is missing, the source is no video, or damaged, or too large, or the target
            cannot hold its sound or cannot be written.
    """
    codec = _encoder(settings.codec)
    import av

    muxer = MUXERS.get(target.suffix.lower())
    if muxer is None:
        raise UserError(f"{target}: a video is written as one of {', '.join(MUXERS)}")
    try:
        open_regular(source).close()
    except PhotoError as error:
        raise UserError(f"{source}: {error}") from error
    with (
        explained(source),
        # An absolute path: others could be taken for addresses.
        av.open(str(real_path(source)), options=_SAFELY, metadata_errors="replace") as container,
    ):
        reader = FrameReader(container, source, settings.max_pixels)
        with closing(prefetched(reader, ahead=2 * settings.batch_size + 2)) as frames:
            first = next(frames, None)
            if first is None:
                raise UserError(f"{source}: no frame of it can be decoded")
            upscaled = _upscaled(itertools.chain([first], frames), upscale, settings)
            with replacing(target, synced=False) as file, explained(target), _written(file, muxer) as output:
                height, width = scaled_size(first.pixels.shape, settings.scale)
                writer = FrameWriter(output, target, reader, (height, width), codec, settings.crf)
                with closing(in_order(writer.write, upscaled, workers=1, ahead=settings.batch_size + 1)) as written:
                    count = sum(1 for _ in tracked_of(written, reader.total(), "frame", settings.show))
                writer.finish()
    return count * height * width


@contextmanager
def _written(file: IO[bytes], muxer: str) -> Iterator["OutputContainer"]:
    """Open a file for writing; after an error, errors of closing it are ignored."""
    import av

    output = av.open(file, "w", format=muxer)
    try:
        yield output
    except BaseException:
        with suppress(Exception):
            output.close()
        raise
    output.close()


def _upscaled(frames: Iterator[Frame], upscale: Upscale, settings: VideoSettings) -> Iterator[Frame]:
    while batch := list(itertools.islice(frames, settings.batch_size)):
        results = upscale_exactly(upscale, [frame.pixels for frame in batch], settings.scale)
        for frame, pixels in zip(batch, results, strict=True):
            yield replace(frame, pixels=pixels)


def _encoder(codec: str | None) -> str:
    """Return the name of the encoder.

    Raises:
        UserError: if PyAV is missing, or lacks the encoder.
    """
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV: pip install 'gramgan-plugin[video]'") from None
    there = [name for name in CODECS if name in av.codecs_available]
    if not there or codec not in (None, *there):
        raise UserError(f"--codec {codec or CODECS[0]}: this PyAV has only {', '.join(there) or 'other encoders'}")
    return codec or there[0]
