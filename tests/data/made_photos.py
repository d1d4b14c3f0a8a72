"""Files of photos in every form, made by Pillow, tifffile or by hand."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import tifffile
from PIL import Image as PillowImage

from gramgan_plugin.data.photos import decode_photo

WHEEL = Path(skimage.data.__file__).parent
COFFEE = skimage.data.coffee()[100:148, 200:280]  # (48, 80, 3)
DEEP = np.minimum(COFFEE.astype(int) * 257 + np.arange(80)[:, None] * 3, 65535).astype(np.uint16)


def saved(image: PillowImage.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo() -> PillowImage.Image:
    return PillowImage.fromarray(COFFEE)


def rgb(data: bytes) -> np.ndarray:
    decoded = decode_photo(data)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    return decoded[..., ::-1]


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def handmade_png(samples: np.ndarray, bits: int, colour_type: int, *extra: bytes) -> bytes:
    """A PNG of any depth, with chunks of one's own before the pixels."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    if bits >= 8:
        rows = [b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in samples]
    else:
        shifts = np.arange(bits - 1, -1, -1)
        rows = [b"\0" + np.packbits((row[:, None] >> shifts & 1).astype(np.uint8).ravel()).tobytes() for row in samples]
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + body + chunk(b"IEND", b"")


def handmade_tiff(samples: np.ndarray, orientation: int = 1, tags: tuple = (), **options: object) -> bytes:
    buffer = io.BytesIO()
    tags = [(274, "H", 1, orientation, True), *tags]
    tifffile.imwrite(buffer, samples, extratags=tags, metadata=None, **options)
    return buffer.getvalue()


def s15fixed16(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """The file of an ICC profile."""
    body, table = b"", struct.pack(">I", len(tags))
    begin = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", begin + len(body), bytes(4), 0x02200000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + s15fixed16(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


def display_p3() -> bytes:
    """An ICC profile made by hand: Display P3's primaries (adapted to D50), a gamma of 2.2."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 3) + b"P3\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0" + bytes(3),
        b"wtpt": b"XYZ " + bytes(4) + s15fixed16(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ " + bytes(4) + s15fixed16(0.51512, 0.24120, -0.00105),
        b"gXYZ": b"XYZ " + bytes(4) + s15fixed16(0.29198, 0.69225, 0.04189),
        b"bXYZ": b"XYZ " + bytes(4) + s15fixed16(0.15710, 0.06657, 0.78407),
        **{
            kind: b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
            for kind in (b"rTRC", b"gTRC", b"bTRC")
        },
    }
    return icc(b"mntr", b"RGB ", b"XYZ ", tags)


def near_srgb() -> bytes:
    """sRGB's curve and nearly its primaries."""
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0)
    curve += s15fixed16(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {
        b"wtpt": b"XYZ " + bytes(4) + s15fixed16(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ " + bytes(4) + s15fixed16(0.4359, 0.2223, 0.0139),
        b"gXYZ": b"XYZ " + bytes(4) + s15fixed16(0.3853, 0.7171, 0.0971),
        b"bXYZ": b"XYZ " + bytes(4) + s15fixed16(0.1431, 0.0606, 0.7141),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    return icc(b"mntr", b"RGB ", b"XYZ ", tags)


INKS = np.array([45, 60, 30, 120])  # how much each ink darkens in neutral_inks()


def neutral_inks() -> bytes:
    """An ICC profile of CMYK made by hand: any mixture is gray, L* falling linearly with each ink."""
    nodes = [255 - INKS @ [c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + s15fixed16(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += bytes(range(256)) * 4 + b"".join(bytes((node, 128, 128)) for node in nodes) + bytes(range(256)) * 3
    tags = {b"A2B0": lut, b"wtpt": b"XYZ " + bytes(4) + s15fixed16(0.9642, 1.0, 0.8249)}
    return icc(b"prtr", b"CMYK", b"Lab ", tags)


def lightness_to_srgb(lightness: np.ndarray) -> np.ndarray:
    """CIE L* of a neutral colour -> its level in sRGB."""
    linear = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def p3_to_srgb(levels: np.ndarray) -> np.ndarray:
    """The conversion by matrices, in float64: (..., 3) levels in P3 -> levels in sRGB, clipped."""
    p3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = (levels / 255.0) ** 2.2 @ (np.linalg.inv(srgb) @ p3).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
