"""Every kind of file that users have: expected values come from Pillow, OpenCV, LittleCMS or arithmetic in the test."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from PIL import ImageOps

from gramgan_plugin.data.photos import MAX_PIXELS, PhotoError, PhotoInfo, decode_photo, photo_info, read_photo
from tests.data.made_photos import COFFEE, DEEP, WHEEL, chunk, handmade_png, handmade_tiff, opencv, photo, rgb, saved

# pytest undoes the filter that the module sets; that nothing comes to stderr is tested in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


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
        with pytest.raises(PhotoError, match="an animation"):
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
            with pytest.raises(PhotoError, match=r"^20000x20000 pixels, .* 178 million$"):
                look(path)
        with pytest.raises(PhotoError, match="above the limit"):
            decode_photo(self.bomb(2**31 - 1))
        assert limit == PillowImage.MAX_IMAGE_PIXELS

    def test_feature_own_limit(self) -> None:
        data = saved(photo(), "png")
        assert decode_photo(data, max_pixels=48 * 80).shape == (48, 80, 3)
        with pytest.raises(PhotoError, match=r"80x48 pixels, .* 0.003839 million"):
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
