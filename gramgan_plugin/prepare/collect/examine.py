"""Measure a photo, make its thumbnail, and decide whether its file can be copied."""

import hashlib
import io

import cv2
import numpy as np

from gramgan_plugin.data.images import Image
from gramgan_plugin.data.photo_headers import Header, read_header
from gramgan_plugin.data.photo_wholeness import checked_png
from gramgan_plugin.data.photos import MAX_PIXELS, PhotoError, decode_photo
from gramgan_plugin.prepare.collect.criteria import Measured
from gramgan_plugin.prepare.collect.measures import blockiness, jpeg_quality, sharpness, spectral_drop, strips
from gramgan_plugin.prepare.collect.similarity import perceptual_hash

THUMBNAIL = 160  # pixels of the longer side
# Formats that are copied if their pixels need no change, and the suffix that `prepare folder` recognises.
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "PPM": ".ppm"}
DIGITS = 4  # of measured numbers; verdicts use the rounded numbers, as recorded


def examine(data: bytes) -> tuple[Measured, bytes | None]:
    """Decode and measure a photo.

    Args:
        data: the file's bytes.

    Returns:
        The measurements, and a small JPEG; None instead of it if the file is not a usable photo.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        header = read_header(io.BytesIO(data), MAX_PIXELS)
        image = decode_photo(data)
    except PhotoError as error:
        return Measured(sha256, len(data), unreadable=str(error)), None
    planes = strips(image)
    tables = getattr(header.image, "quantization", None) if header.form == "JPEG" else None
    measured = Measured(
        sha256=sha256,
        size=len(data),
        width=image.shape[1],
        height=image.shape[0],
        format=header.form,
        sharpness=round(sharpness(planes), DIGITS),
        spectral_drop=round(spectral_drop(planes), DIGITS),
        blockiness=round(blockiness(planes), DIGITS),
        jpeg_quality=jpeg_quality([tables[key] for key in sorted(tables)]) if tables else None,
        hash64=perceptual_hash(image),
        exif=bool(header.image.info.get("exif")),
        rewrite=_why_rewrite(data, header, image),
    )
    return measured, _thumbnail(image)


def _why_rewrite(data: bytes, header: Header, image: Image) -> str | None:
    """Return why a program without support for profiles and EXIF would decode other pixels, or None."""
    if header.form not in SUFFIXES:
        return header.form
    if header.bits > 8:
        return f"{header.bits} bits"
    profile = bool(header.image.info.get("icc_profile"))
    if header.orientation == 1 and not profile and header.form in ("JPEG", "PNG") and header.image.mode in ("L", "RGB"):
        return None  # decode_photo has used OpenCV's pixels
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    seen = checked_png(data) if header.form == "PNG" else data  # or libpng writes about odd profiles to stderr
    try:
        plain = cv2.imdecode(np.frombuffer(seen, np.uint8), flags)
    except cv2.error:
        plain = None
    if plain is not None and np.array_equal(plain, image):
        return None
    if header.orientation != 1:
        return "EXIF orientation"
    return "colour profile" if profile else f"colours in mode {header.image.mode}"


def _thumbnail(image: Image) -> bytes:
    factor = min(1.0, THUMBNAIL / max(image.shape[:2]))
    width, height = (max(1, round(side * factor)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
