"""Which measured photos are kept: the limits, and what each photo is dropped for."""

from collections.abc import Sequence
from dataclasses import dataclass

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.collect.similarity import BITS, HashIndex

# Why photos are not kept, in the order in which it is checked, and how a report calls it.
REASONS = {
    "failed": "could not be had",
    "unreadable": "no usable photo",
    "small": "too small",
    "blurred": "blurred",
    "upscaled": "enlarged",
    "compressed": "heavily compressed",
    "duplicate": "the same file as another",
    "similar": "near-duplicate of another",
}


@dataclass(frozen=True)
class Criteria:
    """The limits; None switches one off.

    Each default was chosen on 400 photos of the Berkeley segmentation data set and spoilt versions of them. None of
    these photos is dropped, not even if all but its middle is out of focus; out of a simulated camera sensor and a
    JPEG of quality 85, two in a hundred are.

    Attributes:
        min_side: least pixels of the shorter side; 480 gives one sub-image even with the larger preset.
        min_sharpness: see ``measures.sharpness``; good photos have 0.56 and more, blurred ones (Gaussian of 1.5
            pixels) 0.5 and less.
        max_spectral_drop: see ``measures.spectral_drop``; good photos have up to 1.6, enlarged ones (1.5 times,
            bicubic) 1.6 and more.
        min_jpeg_quality: of a JPEG file, by its tables; 75 is what most encoders take by default.
        max_blockiness: see ``measures.blockiness``; JPEGs of quality 75 have up to 0.8, most of quality 30 over 0.9.
        hash_distance: bits, of 64, in which near-duplicates may differ; of 12 million pairs of different photos none
            differed in so few, and three in up to 8.
    """

    min_side: int | None = 480
    min_sharpness: float | None = 0.45
    max_spectral_drop: float | None = 1.6
    min_jpeg_quality: int | None = 75
    max_blockiness: float | None = 0.85
    hash_distance: int | None = 6

    def check(self) -> None:
        """Refuse limits that make no sense.

        Raises:
            UserError: naming the option.
        """
        for option, value, least, most in (
            ("--min-side", self.min_side, 1, 100_000),
            ("--min-sharpness", self.min_sharpness, 0, 1),
            ("--max-spectral-drop", self.max_spectral_drop, 0, 10),
            ("--min-jpeg-quality", self.min_jpeg_quality, 1, 100),
            ("--max-blockiness", self.max_blockiness, 0, 4),
            ("--hash-distance", self.hash_distance, 0, BITS // 4),
        ):
            if value is not None and not least <= value <= most:
                raise UserError(f"{option} {value}: must be from {least} to {most}, or off")


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found out about a photo from its content alone.

    Attributes:
        sha256: of the file, in hex.
        size: of the file in bytes.
        format: "JPEG", "PNG", ...
        jpeg_quality: None for what is no JPEG.
        hash64: the perceptual hash.
        exif: whether the file says when, where or with what it was taken.
        rewrite: why the file cannot be copied as it is; None if it can.
        unreadable: why it is no usable photo; all else but the first two is then 0 or None.
    """

    sha256: str
    size: int
    width: int = 0
    height: int = 0
    format: str = ""
    sharpness: float = 0.0
    spectral_drop: float = 0.0
    blockiness: float = 0.0
    jpeg_quality: int | None = None
    hash64: int = 0
    exif: bool = False
    rewrite: str | None = None
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a photo is kept (``reason`` is None), or a key of ``REASONS`` and the facts.

    Attributes:
        twin: where the photo that is kept in its stead stands among all.
    """

    reason: str | None = None
    detail: str = ""
    twin: int | None = None


def judge_alone(photo: Measured, criteria: Criteria) -> Verdict:
    """Return what a photo is dropped for whatever the others are."""
    if photo.unreadable is not None:
        return Verdict("unreadable", photo.unreadable)
    least = criteria.min_side
    if least is not None and min(photo.width, photo.height) < least:
        return Verdict("small", f"{photo.width}x{photo.height}, shorter side below {least}")
    limit = criteria.min_sharpness
    if limit is not None and photo.sharpness < limit:
        return Verdict("blurred", f"sharpness {photo.sharpness:.2f}, below {limit:g}")
    limit = criteria.max_spectral_drop
    if limit is not None and photo.spectral_drop > limit:
        return Verdict("upscaled", f"spectral drop {photo.spectral_drop:.2f}, above {limit:g}")
    limit = criteria.min_jpeg_quality
    if limit is not None and photo.jpeg_quality is not None and photo.jpeg_quality < limit:
        return Verdict("compressed", f"JPEG quality {photo.jpeg_quality}, below {limit:g}")
    limit = criteria.max_blockiness
    if limit is not None and photo.blockiness > limit:
        return Verdict("compressed", f"blockiness {photo.blockiness:.2f}, above {limit:g}")
    return Verdict()


def judge(names: Sequence[str], photos: Sequence[Measured], criteria: Criteria) -> list[Verdict]:
    """Keep or drop each of some photos.

    Of equal files and of near-duplicates that pass all else, the one with the most pixels is kept, then the one less
    compressed, then the first. So the result depends on the photos and their order alone.

    Args:
        names: what each photo is called in the verdict about another.
        photos: the same number.
        criteria: the limits.

    Returns:
        One for each.
    """
    verdicts = [judge_alone(photo, criteria) for photo in photos]
    passed = [place for place, verdict in enumerate(verdicts) if verdict.reason is None]
    passed.sort(key=lambda place: (-photos[place].width * photos[place].height, -_quality(photos[place]), place))
    equal: dict[str, int] = {}
    index = HashIndex(criteria.hash_distance) if criteria.hash_distance is not None else None
    for place in passed:
        photo = photos[place]
        same = equal.setdefault(photo.sha256, place)
        if same != place:
            verdicts[place] = Verdict("duplicate", f"the same file as {names[same]}", same)
        elif index is not None and (found := index.nearest(photo.hash64)) is not None:
            twin, distance = found
            verdicts[place] = Verdict("similar", f"like {names[twin]}, {distance} of {BITS} bits differ", twin)
        elif index is not None:
            index.add(photo.hash64, place)
    return verdicts


def _quality(photo: Measured) -> int:
    return 101 if photo.jpeg_quality is None else photo.jpeg_quality
