"""Real photos whose files are made to trip a parser: by hand, or at random."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import skimage.data
import tifffile
from PIL import Image as PillowImage

COFFEE = skimage.data.coffee()[100:148, 200:280]  # (48, 80, 3)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ASCII, SHORT, RATIONAL, UNDEFINED = 2, 3, 5, 7  # types of TIFF's tags
STRIP_OFFSETS, STRIP_LENGTHS, TILE_OFFSETS, TILE_LENGTHS = 273, 279, 324, 325


def saved(form: str, image: PillowImage.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or PillowImage.fromarray(COFFEE)).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each."""
    found, place = [], len(SIGNATURE)
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        found.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def tiff(tiled: bool = False, bits: int = 8) -> bytes:
    buffer = io.BytesIO()
    samples = COFFEE if bits == 8 else COFFEE.astype(np.uint16) * 257
    tifffile.imwrite(buffer, samples, photometric="rgb", metadata=None, tile=(16, 16) if tiled else None)
    return buffer.getvalue()


def entries(tiff_file: bytes) -> list[int]:
    """Where the entries of a little-endian TIFF's first directory lie."""
    (begin,) = struct.unpack_from("<I", tiff_file, 4)
    (count,) = struct.unpack_from("<H", tiff_file, begin)
    return [begin + 2 + 12 * number for number in range(count)]


def retyped(tiff_file: bytes, tag: int, kind: int) -> bytes:
    """Give the values of a tag another type, the bytes unchanged."""
    data = bytearray(tiff_file)
    (place,) = (place for place in entries(tiff_file) if struct.unpack_from("<H", data, place)[0] == tag)
    struct.pack_into("<H", data, place + 2, kind)
    return bytes(data)


def handmade() -> dict[str, bytes]:
    """By file name: each was found to end a job, or is of the same kind."""
    parts = chunks(saved("png"))
    deep = chunks(saved("png", PillowImage.fromarray(COFFEE[..., 0].astype(np.uint16) * 257)))
    found = {
        "second_header.png": png_of([*parts[:-1], (b"IHDR", b""), parts[-1]]),
        "second_header_of_16_bits.png": png_of([*deep[:-1], (b"IHDR", b""), deep[-1]]),
        "short_header.png": png_of([(b"IHDR", parts[0][1][:9]), *parts[1:]]),
        "no_pixels.png": png_of([parts[0], parts[-1]]),
        "short_colour.png": png_of([deep[0], (b"tRNS", b"\0"), *deep[1:]]),
        "empty_colour.png": png_of([deep[0], (b"tRNS", b""), *deep[1:]]),
        "short_profile.png": png_of([parts[0], (b"iCCP", b""), *parts[1:]]),
        "cut.png": saved("png")[:-300],
        "cut.webp": saved("webp")[:-300],
        "cut.jpg": saved("jpeg")[:-300],
        "tables.jpg": b"\xff\xd8\xff\xdb\0\3\0" + saved("jpeg")[2:],
    }
    for bits in (8, 16):
        for tiled, tags in ((True, (TILE_OFFSETS, TILE_LENGTHS)), (False, (STRIP_OFFSETS, STRIP_LENGTHS))):
            for tag in tags:
                for name, kind in (("ascii", ASCII), ("rational", RATIONAL), ("undefined", UNDEFINED)):
                    found[f"{name}_{tag}_of_{bits}_bits.tif"] = retyped(tiff(tiled, bits), tag, kind)
    del found["rational_279_of_8_bits.tif"]  # its one strip is read to the end of the file: a photo all the same
    return found


def mutated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """File name and content of ``count`` photos in all formats, parts of each changed, lost or out of place."""
    draw = random.Random(seed)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    whole = {form: saved(form, exif=exif) for form in ("jpeg", "png", "webp")}
    whole |= {form: saved(form) for form in ("bmp", "ppm", "tiff")} | {"tif": tiff(tiled=True, bits=16)}
    whole["gif"] = saved("gif", PillowImage.fromarray(COFFEE).quantize(64))
    for number in range(count):
        form = draw.choice(sorted(whole))
        data = whole[form]
        if form == "png" and draw.random() < 0.7:
            data = _mutated_png(data, draw)
        elif form in ("tif", "tiff") and draw.random() < 0.7:
            data = _mutated_tiff(data, draw)
        else:
            data = _mutated_bytes(data, draw)
        yield f"{number:04d}.{'bmp' if form == 'gif' else form}", data


def _mutated_png(data: bytes, draw: random.Random) -> bytes:
    parts = chunks(data)
    for _ in range(draw.randint(1, 2)):
        place = draw.randrange(len(parts))
        kind, content = parts[place]
        kinds = (b"IHDR", b"tRNS", b"eXIf", b"PLTE", b"iCCP", b"acTL", b"fcTL", b"iTXt", b"pHYs", b"IDAT")
        match draw.randrange(4):
            case 0:
                parts[place] = kind, content[: draw.randrange(len(content) + 1)]
            case 1:
                parts.insert(place, (draw.choice(kinds), draw.randbytes(draw.choice((0, 1, 2, 6, 13)))))
            case 2:
                parts.insert(draw.randrange(len(parts)), parts[place])
            case 3 if len(parts) > 1:
                del parts[place]
    return png_of(parts)


def _mutated_tiff(data: bytes, draw: random.Random) -> bytes:
    changed, places = bytearray(data), entries(data)
    for _ in range(draw.randint(1, 2)):
        place = draw.choice(places)
        match draw.randrange(4):
            case 0:
                struct.pack_into("<H", changed, place + 2, draw.choice((*range(14), 16, 255)))
            case 1:
                struct.pack_into("<I", changed, place + 4, draw.choice((0, 1, 2, 3, 1000, 2**31, 2**32 - 1)))
            case 2:
                struct.pack_into("<I", changed, place + 8, draw.choice((0, 1, 8, len(data), 2**31, 2**32 - 1)))
            case 3:
                struct.pack_into("<H", changed, place, draw.choice((258, 262, 273, 274, 279, 324, 325, 339, 34675)))
    return bytes(changed)


def _mutated_bytes(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(min(len(changed), draw.choice((32, 200, 10**6))))
        match draw.randrange(4):
            case 0:
                changed[place] = draw.choice((0, 1, 127, 255, draw.randrange(256)))
            case 1:
                del changed[place : place + draw.choice((1, 2, 16))]
            case 2:
                changed[place:place] = draw.randbytes(draw.choice((1, 2, 16)))
            case 3:
                changed[place : place + 4] = struct.pack(
                    draw.choice("<>") + "I", draw.choice((0, 2**16, 2**31, 2**32 - 1))
                )
    return bytes(changed)
