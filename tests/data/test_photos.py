"""Every kind of file that users have: expected values come from Pillow, OpenCV, LittleCMS or arithmetic in the test."""

import contextlib
import errno
import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image as PillowImage
from PIL import ImageCms, ImageOps

from gramgan_plugin.data.photo_headers import read_header
from gramgan_plugin.data.photos import MAX_PIXELS, PhotoError, PhotoInfo, decode_photo, photo_info, read_photo
from gramgan_plugin.prepare.collect.examine import examine
from tests.data import damaged_photos

# pytest undoes the filter that the module sets; that nothing comes to stderr is tested in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

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


class TestOrdinary:
    @pytest.mark.parametrize(
        "file",
        ["coffee.png", "retina.jpg", "camera.png", "astronaut.png", "hubble_deep_field.jpg", "chessboard_GRAY.png"],
    )
    def test_feature_pixels_of_opencv(self, file: str) -> None:
        data = (WHEEL / file).read_bytes()
        assert np.array_equal(decode_photo(data), opencv(data))
        assert np.array_equal(read_photo(WHEEL / file), opencv(data))

    @pytest.mark.parametrize(
        ("mode", "options"),
        [("RGB", {"quality": 70}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 0}), ("L", {})],
    )
    def test_feature_kinds_of_jpeg(self, mode: str, options: dict[str, object]) -> None:
        data = saved(photo().convert(mode), "jpeg", **options)
        assert np.array_equal(decode_photo(data), opencv(data))

    def test_feature_threads(self) -> None:
        files = [(WHEEL / name).read_bytes() for name in ("chelsea.png", "rocket.jpg", "page.png", "color.png")]
        expected = [decode_photo(data) for data in files]
        failures: list[str] = []

        def work(first: int) -> None:
            for step in range(8):
                number = (first + step) % len(files)
                if not np.array_equal(decode_photo(files[number]), expected[number]):
                    failures.append(f"{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


class TestDepth:
    @pytest.mark.parametrize("form", ["png", "tiff"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_feature_16_bits_are_rounded(self, form: str, channels: int) -> None:
        samples = DEEP if channels == 3 else DEEP[..., 0]
        if form == "png":
            data = handmade_png(samples, 16, 2 if channels == 3 else 0)
        else:
            data = handmade_tiff(samples, photometric="rgb" if channels == 3 else "minisblack")
        expected = np.floor(samples / 257 + 0.5).astype(np.uint8).reshape(48, 80, channels)
        assert np.array_equal(rgb(data), np.broadcast_to(expected, (48, 80, 3)))
        assert photo_info(data).bits == 16
        assert (expected != (samples.reshape(expected.shape) >> 8)).any()  # not the same as cutting off

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", ["plain", "zlib", "tiles", "big"])
    def test_feature_16_bit_tiffs(self, order: str, kind: str) -> None:
        if (order, kind) == (">", "big"):
            pytest.skip("Pillow cannot read it")
        options: dict[str, object] = {
            "zlib": {"compression": "zlib", "predictor": 2},
            "tiles": {"tile": (16, 16)},
        }.get(kind, {})
        tags = [(37500, "H", 1, 7, True), (50000, "s", 5, "note", True)]
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=kind == "big") as file:
            file.write(DEEP, photometric="rgb", extratags=tags, **options)
        assert np.array_equal(rgb(buffer.getvalue()), np.floor(DEEP / 257 + 0.5))

    @pytest.mark.parametrize("bits", [8, 16])
    def test_feature_white_is_zero(self, bits: int) -> None:
        samples = COFFEE[..., 0] if bits == 8 else DEEP[..., 0]
        expected = 255 - np.floor(samples / (1 if bits == 8 else 257) + 0.5)
        assert np.abs(rgb(handmade_tiff(samples, photometric="miniswhite"))[..., 1] - expected).max() == 0

    def test_feature_16_bit_ppm(self) -> None:
        data = b"P6 80 48 65535\n" + DEEP.astype(">u2").tobytes()
        assert np.abs(rgb(data) - DEEP / 257.0).max() <= 0.51
        gray = b"P5 80 48 65535\n" + DEEP[..., 0].astype(">u2").tobytes()
        assert np.abs(rgb(gray)[..., 1] - DEEP[..., 0] / 257.0).max() <= 0.51

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_feature_few_bits(self, bits: int) -> None:
        samples = COFFEE[..., 0] >> (8 - bits)
        expected = samples * (255 // (2**bits - 1))
        assert np.array_equal(rgb(handmade_png(samples, bits, 0))[..., 2], expected)

    @pytest.mark.parametrize("colours", [1, 3])
    def test_exception_floating_point(self, colours: int) -> None:
        samples = COFFEE.astype(np.float32) / 255
        data = handmade_tiff(samples, photometric="rgb") if colours == 3 else handmade_tiff(samples[..., 0])
        with pytest.raises(PhotoError, match="save it with 8 or 16 bits"):
            decode_photo(data)

    @pytest.mark.parametrize("kind", [np.int16, np.uint32, np.float64])
    def test_exception_samples_without_a_range(self, kind: type) -> None:
        with pytest.raises(PhotoError, match="save it with 8 or 16 bits"):
            decode_photo(handmade_tiff(COFFEE[..., 0].astype(kind)))

    def test_exception_separate_planes(self) -> None:
        planes = np.ascontiguousarray(DEEP.transpose(2, 0, 1))
        with pytest.raises(PhotoError, match="separate planes"):
            decode_photo(handmade_tiff(planes, photometric="rgb", planarconfig="separate"))


class TestColours:
    @pytest.mark.parametrize("form", ["png", "tiff", "bmp", "gif"])
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
    def test_feature_modes(self, form: str, mode: str) -> None:
        source = photo().convert(mode)
        if form == "gif" and mode == "RGB":
            pytest.skip("GIF has palettes only")
        assert np.array_equal(rgb(saved(source, form)), np.asarray(source.convert("RGB")))

    def test_feature_webp(self) -> None:
        assert np.array_equal(rgb(saved(photo(), "webp", lossless=True)), COFFEE)
        lossy = saved(photo(), "webp", quality=80)
        assert np.array_equal(decode_photo(lossy), opencv(lossy))

    def test_feature_avif(self) -> None:
        pytest.importorskip("PIL.AvifImagePlugin")
        data = saved(photo(), "avif", quality=95)
        assert np.abs(rgb(data).astype(int) - COFFEE).mean() < 3

    def test_feature_cmyk_without_profile(self) -> None:
        data = saved(photo().convert("CMYK"), "jpeg", quality=95, subsampling=0)
        assert photo_info(data) == PhotoInfo(80, 48, "JPEG", "CMYK", 8)
        assert np.array_equal(rgb(data), np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB")))
        assert np.abs(rgb(data).astype(int) - COFFEE).mean() < 4

    @pytest.mark.parametrize("form", ["png", "webp", "tiff"])
    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_feature_opaque_alpha_is_dropped(self, form: str, mode: str) -> None:
        source = photo().convert(mode)
        options = {"lossless": True} if form == "webp" else {}
        assert np.array_equal(rgb(saved(source, form, **options)), np.asarray(source.convert("RGB")))

    @pytest.mark.parametrize("form", ["png", "webp", "tiff"])
    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_exception_transparency(self, form: str, mode: str) -> None:
        source = photo().convert(mode)
        alpha = PillowImage.new("L", source.size, 255)
        alpha.putpixel((3, 4), 254)
        source.putalpha(alpha)
        options = {"lossless": True} if form == "webp" else {}
        with pytest.raises(PhotoError, match="transparent in places; flatten it"):
            decode_photo(saved(source, form, **options))

    @pytest.mark.parametrize("colour_type", [4, 6])
    def test_feature_16_bit_alpha(self, colour_type: int) -> None:
        colours = DEEP if colour_type == 6 else DEEP[..., :1]
        opaque = np.dstack([colours, np.full((48, 80), 65535)])
        expected = np.floor(colours / 257 + 0.5)
        assert np.array_equal(rgb(handmade_png(opaque, 16, colour_type)), np.broadcast_to(expected, (48, 80, 3)))
        opaque[5, 6, -1] = 65534
        with pytest.raises(PhotoError, match="transparent"):
            decode_photo(handmade_png(opaque, 16, colour_type))

    @pytest.mark.parametrize("form", ["png", "gif"])
    def test_feature_palette_with_transparency(self, form: str) -> None:
        source = photo().quantize(60)
        unused = saved(source, form, transparency=200) if form == "gif" else None
        if unused is not None:
            assert np.array_equal(rgb(unused), np.asarray(source.convert("RGB")))
        with pytest.raises(PhotoError, match="transparent"):
            decode_photo(saved(source, form, transparency=int(np.asarray(source)[0, 0])))

    @pytest.mark.parametrize("bits", [4, 8, 16])
    @pytest.mark.parametrize("colour_type", [0, 2])
    def test_feature_transparent_colour(self, bits: int, colour_type: int) -> None:
        """PNG's tRNS of gray and colours: a colour that does not occur hides nothing."""
        if (bits, colour_type) == (4, 2):
            pytest.skip("PNG has no such kind")
        samples = DEEP.astype(int) >> (16 - bits)
        samples = (samples if colour_type == 2 else samples[..., 0]) | 1  # all odd
        used = np.atleast_1d(samples[7, 9])
        rgb(handmade_png(samples, bits, colour_type, chunk(b"tRNS", struct.pack(f">{len(used)}H", *(used - 1)))))
        with pytest.raises(PhotoError, match="transparent"):
            decode_photo(handmade_png(samples, bits, colour_type, chunk(b"tRNS", struct.pack(f">{len(used)}H", *used))))

    @pytest.mark.parametrize("form", ["gif", "webp", "png"])
    def test_exception_animation(self, form: str) -> None:
        frames = [photo(), ImageOps.mirror(photo())]
        data = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
        with pytest.raises(PhotoError, match="an animation; save the frame that you want"):
            decode_photo(data)

    @pytest.mark.parametrize("form", ["tiff", "mpo"])
    def test_feature_first_of_several_pictures(self, form: str) -> None:
        data = saved(photo(), form, save_all=True, append_images=[ImageOps.mirror(photo())])
        first = PillowImage.open(io.BytesIO(data))
        assert np.array_equal(rgb(data), np.asarray(first))


class TestOrientation:
    @pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_feature_as_pillow_turns(self, form: str, orientation: int) -> None:
        exif = PillowImage.Exif()
        exif[0x112] = orientation
        options = {"lossless": True} if form == "webp" else {}
        data = saved(photo(), form, exif=exif, **options)
        turned = ImageOps.exif_transpose(PillowImage.open(io.BytesIO(data)))
        assert np.array_equal(rgb(data), np.asarray(turned))
        assert photo_info(data)[:2] == turned.size
        if form == "jpeg":
            assert np.array_equal(decode_photo(data), opencv(data))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_feature_16_bits(self, orientation: int) -> None:
        shallow = rgb(handmade_tiff(COFFEE, orientation, photometric="rgb"))
        deep = handmade_tiff(COFFEE.astype(np.uint16) * 257, orientation, photometric="rgb")
        assert np.array_equal(rgb(deep), shallow)
        assert photo_info(deep)[:2] == shallow.shape[1::-1]

    def test_feature_exif_behind_the_pixels(self) -> None:
        plain = handmade_png(COFFEE, 8, 2)
        exif = PillowImage.Exif()
        exif[0x112] = 6
        data = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
        assert np.array_equal(rgb(data), np.rot90(COFFEE, -1))
        assert photo_info(data)[:2] == (48, 80)

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_feature_nonsense_is_ignored(self, value: int) -> None:
        exif = PillowImage.Exif()
        exif[0x112] = value
        assert np.array_equal(rgb(saved(photo(), "png", exif=exif)), COFFEE)

    def test_feature_damaged_exif_is_ignored(self) -> None:
        data = saved(photo(), "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
        assert decode_photo(data).shape == (48, 80, 3)


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


class TestProfiles:
    @pytest.mark.parametrize("form", ["png", "tiff", "webp"])
    def test_feature_display_p3(self, form: str) -> None:
        options = {"lossless": True} if form == "webp" else {}
        converted = rgb(saved(photo(), form, icc_profile=display_p3(), **options))
        expected = p3_to_srgb(COFFEE)
        assert np.abs(converted - expected).max() < 2.5
        assert np.abs(converted - expected).mean() < 0.4
        assert np.abs(converted.astype(int) - COFFEE).max() > 8  # it makes a difference

    def test_feature_display_p3_16_bits(self) -> None:
        data = handmade_png(DEEP, 16, 2, chunk(b"iCCP", b"p3\0\0" + zlib.compress(display_p3())))
        assert np.abs(rgb(data) - p3_to_srgb(DEEP / 257)).max() < 3

    def test_feature_turned_and_converted(self) -> None:
        exif = PillowImage.Exif()
        exif[0x112] = 6
        data = saved(photo(), "png", exif=exif, icc_profile=display_p3())
        assert np.abs(rgb(data) - p3_to_srgb(np.rot90(COFFEE, -1))).max() < 2.5

    def test_feature_real_adobe_rgb(self) -> None:
        """scikit-image's rocket is a JPEG in Adobe RGB."""
        path = WHEEL / "rocket.jpg"
        source = PillowImage.open(path)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(source.info["icc_profile"]))
        expected = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert np.abs(read_photo(path)[..., ::-1].astype(int) - np.asarray(expected)).max() <= 2
        assert np.abs(read_photo(path).astype(int) - opencv(path.read_bytes())).max() > 10

    @pytest.mark.parametrize("file", ["rocket.jpg", "page.png", "color.png"])
    def test_feature_colours_left_as_they_are(self, file: str) -> None:
        """As BasicSR reads benchmark sets."""
        data = (WHEEL / file).read_bytes()
        expected = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode_photo(data, manage_colours=False)[..., ::-1], expected)

    def test_feature_real_gray_profile(self) -> None:
        """scikit-image's page has a dot gain of 20 %: lighter than the same numbers in sRGB."""
        converted = read_photo(WHEEL / "page.png")
        stored = opencv((WHEEL / "page.png").read_bytes())
        assert (converted[..., 0] == converted[..., 2]).all()
        assert np.abs(converted.astype(int) - stored).max() > 5

    def test_feature_cmyk_by_profile(self) -> None:
        data = saved(photo().convert("CMYK"), "jpeg", quality=95, subsampling=0, icc_profile=neutral_inks())
        inks = np.asarray(PillowImage.open(io.BytesIO(data))).astype(float)  # (48, 80, 4)
        expected = lightness_to_srgb((255 - inks @ INKS / 255) / 2.55)
        assert np.abs(rgb(data) - expected[..., None]).max() < 2.5
        assert np.abs(rgb(data) - COFFEE.astype(float)).mean() > 20

    @pytest.mark.parametrize("profile", [b"no profile at all", display_p3()[:200], bytes(300)])
    def test_feature_broken_profile_is_ignored(self, profile: bytes) -> None:
        assert np.array_equal(rgb(saved(photo(), "png", icc_profile=profile)), COFFEE)

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_feature_profile_of_other_colours_is_ignored(self, mode: str) -> None:
        plain, tagged = (
            saved(photo().convert(mode), "jpeg", **options) for options in ({}, {"icc_profile": display_p3()})
        )
        assert np.array_equal(rgb(plain), rgb(tagged))

    @pytest.mark.parametrize("form", ["png", "jpeg"])
    def test_feature_srgb_moves_nothing(self, form: str) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert np.array_equal(rgb(saved(photo(), form)), rgb(saved(photo(), form, icc_profile=profile)))

    def test_feature_nearly_srgb_moves_nothing(self) -> None:
        """Cameras round sRGB's numbers in many ways; a level up or down is not worth touching pixels for."""
        near = near_srgb()
        colours = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
        source = PillowImage.fromarray(colours)
        converted = ImageCms.profileToProfile(
            source, ImageCms.ImageCmsProfile(io.BytesIO(near)), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert np.abs(np.asarray(converted).astype(int) - colours).max() == 1
        assert np.array_equal(rgb(saved(source, "png", icc_profile=near)), colours)


class TestDamage:
    @pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm"])
    @pytest.mark.parametrize("share", [0.4, 0.8, 0.99])
    def test_exception_cut_short(self, form: str, share: float) -> None:
        source = photo().quantize(64) if form == "gif" else photo()
        data = saved(source, form)
        with pytest.raises(PhotoError) as raised:
            decode_photo(data[: int(len(data) * share)])
        assert str(raised.value) == "cut short" or str(raised.value).startswith("damaged")
        if form in ("jpeg", "png", "webp", "tiff"):
            assert str(raised.value) == "cut short"

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_exception_jpeg_with_thumbnail(self, share: float) -> None:
        """The thumbnail's end mark stands in the rest that is left."""
        exif = PillowImage.Exif()
        exif[0x927C] = saved(photo().resize((16, 10)), "jpeg")
        data = saved(photo(), "jpeg", quality=95, exif=exif)
        assert decode_photo(data).shape == (48, 80, 3)
        begin = data.rindex(b"\xff\xda")
        assert b"\xff\xd9" in data[:begin]
        with pytest.raises(PhotoError, match="cut short"):
            decode_photo(data[: begin + int((len(data) - begin) * share)])

    def test_exception_jpeg_filled_up_with_zeros(self) -> None:
        """As a download that got its space before its bytes."""
        data = saved(photo(), "jpeg", quality=95)
        with pytest.raises(PhotoError, match="cut short"):
            decode_photo(data[: len(data) // 2] + bytes(len(data) // 2))

    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    def test_exception_16_bit_tiff_cut_short(self, compression: str | None) -> None:
        """Its directory stands before the pixels, so that the header alone shows it."""
        gray = saved(PillowImage.fromarray(DEEP[..., 0]), "tiff", compression=compression)
        assert rgb(gray).shape == (48, 80, 3)
        for look in (photo_info, decode_photo):
            with pytest.raises(PhotoError, match="cut short"):
                look(gray[:-500])

    def test_feature_bytes_behind_the_end(self) -> None:
        data = saved(photo(), "jpeg", quality=95)
        assert np.array_equal(decode_photo(data + b"film of a moving photo" * 9), opencv(data))

    def test_exception_png_with_flipped_bit(self) -> None:
        data = bytearray(saved(photo(), "png"))
        data[len(data) // 2] ^= 4
        with pytest.raises(PhotoError, match="checksum"):
            decode_photo(bytes(data))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "an empty file"),
            (b"a note, not a photo", "not an image"),
            (b"\x89PNG\r\n\x1a\n", ""),
            (b"\xff\xd8\xff", ""),
            (b"RIFF\x10\0\0\0WEBPnonsense", ""),
            (b"II*\0\x08\0\0\0\xff\xff", ""),
            (b"BM", ""),
            (b"GIF89a", ""),
            (b"P6\n3", ""),
            (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC, which is not supported; convert it to PNG or JPEG"),
            (b"\0\0\0\x18ftypavif" + bytes(20), ""),
            (b"%PDF-1.7 and so on", "not an image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        ],
    )
    def test_exception_no_images(self, data: bytes, reason: str, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(data)
        for look in (photo_info, read_photo):
            with pytest.raises(PhotoError) as raised:
                look(path)
            assert str(raised.value).startswith(reason)
            assert "\n" not in str(raised.value)

    def test_exception_flipped_bytes_everywhere(self) -> None:
        """Whatever is damaged, there is a photo of its size or a PhotoError, nothing else."""
        random = np.random.default_rng(0)
        for form in ("jpeg", "png", "webp", "tiff", "bmp", "gif"):
            whole = saved(photo().quantize(64) if form == "gif" else photo(), form)
            for _ in range(40):
                data = bytearray(whole)
                for place in random.integers(0, min(len(data), 400), 3):
                    data[place] = random.integers(256)
                with contextlib.suppress(PhotoError):
                    assert decode_photo(bytes(data), max_pixels=10**6).shape[2] == 3


class TestHostile:
    """Whatever a parser raises on a file becomes a PhotoError: a job over many files must continue."""

    @pytest.mark.parametrize("name", sorted(damaged_photos.handmade()))
    def test_exception_handmade(self, name: str) -> None:
        data = damaged_photos.handmade()[name]
        with pytest.raises(PhotoError) as raised:
            decode_photo(data)
        assert str(raised.value) == "cut short" or str(raised.value).startswith("damaged: ")
        with contextlib.suppress(PhotoError):  # the damage may not show in the header
            assert photo_info(data)[:2] == (80, 48)
        assert examine(data)[0].unreadable == str(raised.value)

    def test_exception_mutated(self) -> None:
        reasons = []
        for _, data in damaged_photos.mutated(400, seed=5):
            for look in (photo_info, decode_photo, examine):
                try:
                    look(data)
                except PhotoError as error:
                    reasons.append(str(error))
        assert 200 < len(reasons) < 700
        assert not [reason for reason in reasons if "\n" in reason or len(reason) > 300]

    def test_exception_a_long_name_in_the_message_is_cut(self) -> None:
        data = b"P6 " + b"9" * 5000 + b" 48 255\n" + COFFEE.tobytes()
        with pytest.raises(PhotoError) as raised:
            photo_info(data)
        assert len(str(raised.value)) < 300

    def test_exception_disk(self, tmp_path: Path) -> None:
        """One bad sector is the fault of the file that lies on it; a lack of memory is nobody's."""

        class Failing(io.BytesIO):
            error: Exception = OSError(errno.EIO, "Input/output error")

            def read(self, size: int | None = -1) -> bytes:
                raise self.error

        file = Failing(saved(photo(), "png"))
        with pytest.raises(PhotoError, match=r"^cannot be read: Input/output error$"):
            read_header(file, MAX_PIXELS)
        file.error = MemoryError()
        with pytest.raises(MemoryError):
            read_header(file, MAX_PIXELS)

    @pytest.mark.parametrize("white", [False, True])
    def test_exception_transparent_level_of_1_bit(self, white: bool) -> None:
        samples = (COFFEE[..., 0] > 127).astype(np.uint8)
        with pytest.raises(PhotoError, match="transparent"):
            decode_photo(handmade_png(samples, 1, 0, chunk(b"tRNS", bytes((0, white)))))
        whole = np.full_like(samples, not white)
        assert (rgb(handmade_png(whole, 1, 0, chunk(b"tRNS", bytes((0, white))))) == 255 * (not white)).all()


class TestSize:
    def bomb(self, side: int) -> bytes:
        return handmade_png(np.zeros((1, 1), np.uint8), 8, 0).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        )

    def test_exception_bomb_is_refused_by_its_header(self, tmp_path: Path) -> None:
        limit = PillowImage.MAX_IMAGE_PIXELS
        path = tmp_path / "bomb.png"
        path.write_bytes(self.bomb(20000))
        for look in (photo_info, read_photo):
            with pytest.raises(PhotoError, match=r"^20000x20000 pixels, above the limit of 178 million$"):
                look(path)
        with pytest.raises(PhotoError, match="above the limit"):
            decode_photo(self.bomb(2**31 - 1))
        assert limit == PillowImage.MAX_IMAGE_PIXELS

    def test_feature_own_limit(self) -> None:
        data = saved(photo(), "png")
        assert decode_photo(data, max_pixels=48 * 80).shape == (48, 80, 3)
        with pytest.raises(PhotoError, match=r"80x48 pixels, above the limit of 0.003839 million"):
            decode_photo(data, max_pixels=48 * 80 - 1)

    @pytest.mark.filterwarnings("error")
    def test_feature_large_ones_do_not_warn(self) -> None:
        """Pillow warns above half of our limit."""
        assert photo_info(self.bomb(12000)).width == 12000
        assert MAX_PIXELS > 12000 * 12000

    def test_exception_file_too_long(self, tmp_path: Path) -> None:
        path = tmp_path / "long.png"
        path.write_bytes(saved(photo(), "png") + bytes(70_000))
        with pytest.raises(PhotoError, match="too large for a photo"):
            read_photo(path, max_pixels=48 * 80)


class TestPaths:
    @pytest.mark.parametrize("name", ["фото 写真 é.png", "a" * 251 + ".png", "new\nline;$(x).png", "\udcff.png"])
    def test_feature_names(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(saved(photo(), "png"))
        assert np.array_equal(read_photo(tmp_path / name)[..., ::-1], COFFEE)
        assert photo_info(tmp_path / name)[:2] == (80, 48)

    def test_feature_links(self, tmp_path: Path) -> None:
        (tmp_path / "real.png").write_bytes(saved(photo(), "png"))
        (tmp_path / "link.png").symlink_to("real.png")
        assert read_photo(tmp_path / "link.png").shape == (48, 80, 3)
        (tmp_path / "broken.png").symlink_to("nowhere.png")
        with pytest.raises(PhotoError, match="no such file, or a link to none"):
            read_photo(tmp_path / "broken.png")
        (tmp_path / "circle.png").symlink_to("circle.png")
        with pytest.raises(PhotoError, match="leads in a circle"):
            read_photo(tmp_path / "circle.png")

    def test_exception_no_files(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "folder.png").mkdir()
        for name in ("pipe.png", "folder.png"):
            with pytest.raises(PhotoError, match="not a regular file"):
                read_photo(tmp_path / name)
        with pytest.raises(PhotoError, match="a name that is too long"):
            read_photo(tmp_path / ("a" * 300 + ".png"))

    def test_feature_nothing_on_stderr(self, tmp_path: Path) -> None:
        """libpng, libjpeg, libtiff and Pillow all tend to talk of what they do not like."""
        bad_profile = handmade_png(COFFEE, 8, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(b"nonsense" * 30)))
        bad_exif = saved(photo(), "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
        files = {
            "profile.png": bad_profile,
            "exif.jpg": bad_exif,
            "cut.jpg": bad_exif[:-300],
            "cut.png": bad_profile[:-300],
            "cut.tif": saved(photo(), "tiff", compression="tiff_lzw")[:-300],
            "color.png": (WHEEL / "color.png").read_bytes(),
            "camera.tif": handmade_tiff(DEEP, photometric="rgb", tags=[(37500, "s", 5, "note", True)]),
            "sum.png": bad_profile[:-40] + b"xx" + bad_profile[-38:],
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        code = (
            "import sys; from pathlib import Path; import gramgan_plugin.data.photos as p\n"
            "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
            "    try: print(path.name, p.read_photo(path).shape)\n"
            "    except p.PhotoError as error: print(path.name, error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert done.stderr == ""
        assert done.stdout.count("\n") == len(files)
        assert "cut.jpg cut short" in done.stdout
