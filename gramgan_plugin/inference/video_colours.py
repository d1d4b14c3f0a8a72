"""Convert frames between a video's YUV and RGB: by its matrix and its range of values."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.picture_files import Samples

if TYPE_CHECKING:
    from av.codec import Codec
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

# Numbers of ITU-T H.273 (FFmpeg's AVColorSpace): RGB, BT.709, unspecified, BT.601 (525 and 625 lines).
_RGB, _BT709, _UNSPECIFIED, _BT601 = 0, 1, 2, 6
_MATRICES = (_BT709, 4, 5, _BT601, 7, 9)  # that swscale converts; the others are FCC, BT.601, SMPTE 240M, BT.2020
_LIMITED, _FULL = 1, 2  # FFmpeg's AVColorRange
_HD_HEIGHT = 720  # from it on unmarked videos are BT.709, as players take them
# swscale's flags: bicubic, colours interpolated and rounded exactly.
_EXACT = 4 | 0x2000 | 0x4000 | 0x40000


@dataclass(frozen=True)
class Colours:
    """How a video's values are meant, by the numbers of ITU-T H.273.

    Attributes:
        matrix: from RGB to YUV.
        full: whether luma uses 0 to 255, not 16 to 235.
        primaries: not converted, only noted in the result.
        transfer: likewise.
        deep: whether samples have more than 8 bits.
        subsampling: of colours: "420", "422" or "444".
    """

    matrix: int
    full: bool
    primaries: int
    transfer: int
    deep: bool
    subsampling: str

    @classmethod
    def of(cls, frame: "VideoFrame", path: Path) -> "Colours":
        """Return those of a frame; what it leaves unspecified is taken as players do.

        Args:
            frame: the frame.
            path: the file, for an error.

        Raises:
            UserError: for a matrix that is not linear, or not known.
        """
        matrix, kind = int(frame.colorspace), frame.format
        if matrix in (_RGB, _UNSPECIFIED):
            matrix = _BT709 if frame.height >= _HD_HEIGHT else _BT601
        if matrix not in _MATRICES:
            raise UserError(f"{path}: a video with the colour matrix {matrix} of H.273; convert it to BT.709 first")
        narrow, flat = kind.chroma_width(64) < 64, kind.chroma_height(64) < 64
        gray = len(kind.components) < 3 and not kind.has_palette
        return cls(
            matrix=matrix,
            full=int(frame.color_range) == _FULL or kind.is_rgb or kind.has_palette,
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            deep=max(component.bits for component in kind.components) > 8,
            subsampling="420" if flat or gray else "422" if narrow else "444",
        )

    def to_rgb(self, frame: "VideoFrame", reformatter: "VideoReformatter") -> Samples:
        """Return a frame as (H, W, 3) RGB: uint16 if ``deep``, otherwise uint8."""
        frame.colorspace = self.matrix  # reformat's own arguments have no BT.2020 in PyAV 17
        rgb = reformatter.reformat(
            frame,
            format="rgb48le" if self.deep else "rgb24",
            src_color_range=self._range,
            dst_color_range=_FULL,
            interpolation=_EXACT,
        )
        samples: Samples = np.ascontiguousarray(rgb.to_ndarray())
        return samples

    def to_yuv(self, pixels: Samples, pixel_format: str, reformatter: "VideoReformatter") -> "VideoFrame":
        """Return (H, W, 3) RGB, uint8 or uint16, as a frame of :meth:`pixel_format`."""
        from av import VideoFrame

        frame = VideoFrame.from_ndarray(pixels, format="rgb48le" if pixels.dtype == np.uint16 else "rgb24")
        frame.colorspace = self.matrix  # of the result
        return reformatter.reformat(
            frame,
            format=pixel_format,
            src_color_range=_FULL,
            dst_color_range=self._range,
            interpolation=_EXACT,
        )

    def pixel_format(self, codec: "Codec", width: int, height: int) -> str:
        """Return the format in which a codec stores these colours; 8 bits and 4:2:0 if it cannot as they were.

        Args:
            codec: the encoder.
            width: of its frames; odd sides need 4:4:4.
            height: likewise.
        """
        known = [video_format.name for video_format in codec.video_formats or ()]
        subsampling = "444" if width % 2 or height % 2 else self.subsampling
        depths = ("10le", "") if self.deep else ("",)
        wanted = [f"yuv{kind}p{depth}" for kind in (subsampling, "420") for depth in depths]
        return next((name for name in wanted if name in known), wanted[-1])

    def mark(self, context: "VideoCodecContext") -> None:
        """Note them in the encoder's settings, and so in the file."""
        context.colorspace, context.color_range = self.matrix, self._range
        context.color_primaries, context.color_trc = self.primaries, self.transfer

    @property
    def _range(self) -> int:
        return _FULL if self.full else _LIMITED
