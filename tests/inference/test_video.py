"""Videos that the tests make; expected values by the formulas of BT.601 and BT.709, not by FFmpeg's conversion."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.inputs import Job
from gramgan_plugin.inference.jobs import Summary
from gramgan_plugin.inference.video import CODECS, VideoSettings, run_videos, upscale_video

av = pytest.importorskip("av", minversion="17", reason="PyAV is not installed")

SCALE = 2
FULL, LIMITED = 2, 1
# number in H.273 -> shares of red and blue in luma
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
BARS = np.array(
    [[191] * 3, [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191], [255] * 3],
    np.uint8,
)
PICTURE = np.repeat(np.repeat(BARS[None], 48, axis=0), 16, axis=1)  # (48, 128, 3)
PTS = (0, 20, 61, 62, 180)  # of a variable rate, in 1/600 s


def nearest(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array.repeat(SCALE, axis=0).repeat(SCALE, axis=1) for array in arrays]


def settings(**options: object) -> VideoSettings:
    return VideoSettings(SCALE, **{"show": False, "crf": 1, **options})


def to_yuv(rgb: np.ndarray, matrix: int, colour_range: int, depth: int = 8) -> np.ndarray:
    """(H, W, 3) RGB in [0, 255] -> (3, H, W) YUV of so many bits, rounded."""
    red, blue = MATRICES[matrix]
    r, g, b = (rgb[..., channel] / 255 for channel in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - y) / (1 - blue) / 2, (r - y) / (1 - red) / 2])
    unit, most = 2 ** (depth - 8), 2**depth - 1
    if colour_range == FULL:
        planes = np.concatenate([y[None] * most, chroma * most + 128 * unit])
    else:
        planes = np.concatenate([(y[None] * 219 + 16) * unit, (chroma * 224 + 128) * unit])
    return np.rint(planes).clip(0, most).astype(np.uint8 if depth == 8 else np.uint16)


def to_rgb(yuv: np.ndarray, matrix: int, colour_range: int, depth: int = 8) -> np.ndarray:
    """The inverse, in floating point."""
    red, blue = MATRICES[matrix]
    unit, most = 2 ** (depth - 8), 2**depth - 1
    y, u, v = yuv.astype(float)
    if colour_range == FULL:
        y, u, v = y / most, (u - 128 * unit) / most, (v - 128 * unit) / most
    else:
        y, u, v = (y / unit - 16) / 219, (u / unit - 128) / 224, (v / unit - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return 255 * np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)


def planes_of(frame) -> np.ndarray:
    """(3, H, W); colours of fewer samples are repeated."""
    planes = []
    for part in frame.planes:
        samples = np.frombuffer(part, np.uint16 if frame.format.name.endswith("10le") else np.uint8)
        samples = samples.reshape(part.height, -1)[:, : part.width]
        samples = samples.repeat(frame.height // part.height, axis=0)
        planes.append(samples.repeat(frame.width // part.width, axis=1))
    return np.stack(planes)


def frame_of(planes: np.ndarray, pixel_format: str):
    _, height, width = planes.shape
    frame = av.VideoFrame(width, height, pixel_format)
    for number in range(3):
        samples = planes[number]
        part = frame.planes[number]
        step = samples.shape[0] // part.height, samples.shape[1] // part.width
        rows = np.zeros((part.height, part.line_size // samples.itemsize), samples.dtype)
        rows[:, : part.width] = samples[:: step[0], :: step[1]]
        part.update(rows.tobytes())
    return frame


def make_video(
    path: Path,
    planes: list[np.ndarray],
    pixel_format: str = "yuv444p",
    matrix: int = 1,
    colour_range: int = LIMITED,
    codec: str = "libx264",
    sound: str | None = None,
    turn: int = 0,
    times: Iterable[int] = PTS,
) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"qp": "0"} if codec == "libx264" else {})
        _, stream.height, stream.width = planes[0].shape
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 600)
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
        if turn:
            stream.set_display_rotation(turn)
        output.metadata["title"] = "A title"
        audio = None
        if sound:
            audio = output.add_stream(sound, rate=48000)
            audio.layout = "mono"
            audio.metadata["language"] = "deu"
        for pts, samples in zip(times, planes, strict=False):
            frame = frame_of(samples, pixel_format)
            frame.pts, frame.time_base = pts, Fraction(1, 600)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            wave = (np.sin(np.arange(48000) / 20) * 8000).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            samples.rate, samples.pts = 48000, 0
            for part in av.AudioResampler(audio.format.name, "mono", 48000).resample(samples):
                output.mux(audio.encode(part))
            output.mux(audio.encode(None))


def bars(matrix: int = 1, colour_range: int = LIMITED, depth: int = 8) -> np.ndarray:
    return to_yuv(PICTURE, matrix, colour_range, depth)


def frames_of(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def packets_of(path: Path, kind: str) -> list[tuple[object, ...]]:
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(packet.pts * stream.time_base, bytes(packet)) for packet in packets]


class TestColours:
    @pytest.mark.parametrize("matrix", [1, 5, 6, 9])
    @pytest.mark.parametrize("colour_range", [LIMITED, FULL])
    def test_feature_colour_bars(self, tmp_path: Path, matrix: int, colour_range: int) -> None:
        """The network sees the bars' RGB, and the result has it, marked as in the source."""
        source, target, seen = tmp_path / "bars.mkv", tmp_path / "big.mp4", []
        make_video(source, [bars(matrix, colour_range)], "yuv444p", matrix, colour_range)
        upscale_video(source, target, lambda arrays: seen.extend(arrays) or nearest(arrays), settings())
        assert np.abs(seen[0].astype(int) - PICTURE).max() <= 2
        (frame,) = frames_of(target)
        assert (frame.colorspace, frame.color_range) == (matrix, colour_range)
        assert frame.format.name.removeprefix("yuvj").removeprefix("yuv") == "444p"
        planes = planes_of(frame)
        error = to_rgb(planes, matrix, colour_range) - nearest([PICTURE])[0]
        assert np.abs(error).max() <= 5

    def test_feature_wrong_formulas_would_fail(self) -> None:
        """How far off the bars are by another matrix or range: what the test above must tell apart."""
        for matrix, colour_range in ((6, LIMITED), (1, FULL)):
            assert np.abs(to_rgb(bars(), matrix, colour_range) - PICTURE).max() > 15

    @pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
    def test_feature_unmarked(self, tmp_path: Path, height: int, matrix: int) -> None:
        """By the height, as players do; the result is marked."""
        planes = np.repeat(bars(matrix)[:, :1], height, axis=1)
        make_video(tmp_path / "bars.mkv", [planes], matrix=2, colour_range=0)
        seen = []
        upscale_video(tmp_path / "bars.mkv", tmp_path / "big.mkv", lambda a: seen.extend(a) or nearest(a), settings())
        assert np.abs(seen[0][:1].astype(int) - PICTURE[:1]).max() <= 2
        frame = frames_of(tmp_path / "big.mkv")[0]
        assert (frame.colorspace, frame.color_range) == (matrix, LIMITED)

    def test_feature_ten_bits(self, tmp_path: Path) -> None:
        planes, seen = bars(9, LIMITED, depth=10), []
        make_video(tmp_path / "bars.mkv", [planes], "yuv444p10le", 9)
        upscale_video(tmp_path / "bars.mkv", tmp_path / "big.mkv", lambda a: seen.extend(a) or nearest(a), settings())
        assert seen[0].dtype == np.uint16
        assert np.abs(seen[0] / 257 - PICTURE).max() < 1
        frame = frames_of(tmp_path / "big.mkv")[0]
        assert frame.format.name == "yuv444p10le"
        result = to_rgb(planes_of(frame), 9, LIMITED, depth=10)
        assert np.abs(result - nearest([PICTURE])[0]).max() <= 2

    @pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p"])
    def test_feature_subsampling_is_kept(self, tmp_path: Path, pixel_format: str) -> None:
        make_video(tmp_path / "bars.mkv", [bars()], pixel_format)
        upscale_video(tmp_path / "bars.mkv", tmp_path / "big.mkv", nearest, settings())
        frame = frames_of(tmp_path / "big.mkv")[0]
        assert frame.format.name == pixel_format
        inner = to_rgb(planes_of(frame)[:, :, 16::32], 1, LIMITED)  # the middle of each bar
        assert np.abs(inner - BARS).max() <= 5

    def test_feature_lossless_rgb(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "rgb.mkv"), "w") as output:
            stream = output.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 128, "bgr0"
            frame = av.VideoFrame.from_ndarray(PICTURE, "rgb24").reformat(format="bgr0")
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        seen = []
        upscale_video(tmp_path / "rgb.mkv", tmp_path / "big.mkv", lambda a: seen.extend(a) or nearest(a), settings())
        assert np.array_equal(seen[0], PICTURE)


class TestStreams:
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_feature_times_and_sound(self, tmp_path: Path, suffix: str, batch_size: int) -> None:
        source, target = tmp_path / f"clip{suffix}", tmp_path / f"big{suffix}"
        make_video(source, [np.roll(bars(), 16 * n, axis=2) for n in range(5)], "yuv420p", sound="aac")
        pixels = upscale_video(source, target, nearest, settings(batch_size=batch_size))
        assert pixels == 5 * 96 * 256
        before, after = frames_of(source), frames_of(target)
        tolerance = Fraction(1, 1000) if suffix == ".mkv" else 0
        assert [float(frame.pts * frame.time_base * 600) for frame in before] == pytest.approx(PTS, abs=0.5)
        for old, new in zip(before, after, strict=True):
            assert abs(old.pts * old.time_base - new.pts * new.time_base) <= tolerance
        assert packets_of(source, "audio") == packets_of(target, "audio")
        with av.open(str(target)) as container:
            assert container.metadata["title"] == "A title"
            if suffix != ".mov":
                assert container.streams.audio[0].language == "deu"

    def test_feature_sound_after_the_last_frame(self, tmp_path: Path) -> None:
        """Of a codec whose frames are decoded at once."""
        make_video(tmp_path / "clip.mkv", [bars()] * 2, "yuv420p", codec="rawvideo", sound="aac")
        upscale_video(tmp_path / "clip.mkv", tmp_path / "big.mkv", nearest, settings())
        assert packets_of(tmp_path / "clip.mkv", "audio") == packets_of(tmp_path / "big.mkv", "audio")

    def test_feature_the_last_frame_is_shown_as_long(self, tmp_path: Path) -> None:
        make_video(tmp_path / "clip.mp4", [bars()] * 7, "yuv420p", times=range(0, 1000, 40))
        upscale_video(tmp_path / "clip.mp4", tmp_path / "big.mp4", nearest, settings())
        with av.open(str(tmp_path / "clip.mp4")) as old, av.open(str(tmp_path / "big.mp4")) as new:
            assert old.streams.video[0].duration == new.streams.video[0].duration

    @pytest.mark.parametrize("codec", CODECS)
    def test_smoke_codecs(self, tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
        if codec not in av.codecs_available:
            pytest.skip("this PyAV has no such encoder")
        make_video(tmp_path / "clip.mkv", [bars().repeat(3, axis=1).repeat(3, axis=2)] * 3, "yuv420p")
        capfd.readouterr()
        upscale_video(tmp_path / "clip.mkv", tmp_path / "big.mp4", nearest, settings(codec=codec, crf=10))
        assert "info" not in capfd.readouterr().err
        frame = frames_of(tmp_path / "big.mp4")[2]
        assert np.abs(to_rgb(planes_of(frame)[:, :, 48::96], 1, LIMITED) - BARS).max() <= 3

    def test_feature_order_of_frames(self, tmp_path: Path) -> None:
        pictures = [np.full((3, 32, 32), 128, np.uint8) for number in range(5)]
        for number, picture in enumerate(pictures):
            picture[0] = 16 + 40 * number
        make_video(tmp_path / "clip.mp4", pictures, "yuv420p")
        upscale_video(tmp_path / "clip.mp4", tmp_path / "big.mp4", nearest, settings(batch_size=2))
        means = [planes_of(frame)[0].mean() for frame in frames_of(tmp_path / "big.mp4")]
        assert means == pytest.approx([16 + 40 * number for number in range(5)], abs=1)

    @pytest.mark.parametrize("turn", [90, 180, -90])
    def test_feature_turned_as_the_file_says(self, tmp_path: Path, turn: int) -> None:
        make_video(tmp_path / "clip.mp4", [bars()], turn=turn)
        (source,) = frames_of(tmp_path / "clip.mp4")
        assert abs(source.rotation) == abs(turn)
        upscale_video(tmp_path / "clip.mp4", tmp_path / "big.mp4", nearest, settings())
        (frame,) = frames_of(tmp_path / "big.mp4")
        assert frame.rotation == 0
        result = to_rgb(planes_of(frame), 1, LIMITED)
        expected = np.rot90(nearest([PICTURE])[0], source.rotation // 90)
        assert result.shape == expected.shape
        assert np.abs(result - expected).max() <= 5

    def test_feature_pixels_that_are_not_square(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "dv.mkv"), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
            output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
            output.mux(stream.encode(None))
        upscale_video(tmp_path / "dv.mkv", tmp_path / "big.mkv", nearest, settings())
        with av.open(str(tmp_path / "big.mkv")) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)

    def test_feature_odd_sides(self, tmp_path: Path) -> None:
        make_video(tmp_path / "odd.mkv", [bars()[:, :47, :127]])
        upscale_video(
            tmp_path / "odd.mkv",
            tmp_path / "big.mkv",
            lambda arrays: [array.repeat(3, axis=0).repeat(3, axis=1) for array in arrays],
            VideoSettings(3, show=False),
        )
        (frame,) = frames_of(tmp_path / "big.mkv")
        assert (frame.width, frame.height) == (381, 141)

    def test_exception_sound_that_the_file_cannot_hold(self, tmp_path: Path) -> None:
        make_video(tmp_path / "clip.mkv", [bars()], sound="pcm_u8")
        with pytest.raises(UserError, match=r"big\.mp4: .*pcm_u8; .*\.mkv"):
            upscale_video(tmp_path / "clip.mkv", tmp_path / "big.mp4", nearest, settings())
        upscale_video(tmp_path / "clip.mkv", tmp_path / "big.mkv", nearest, settings())
        assert packets_of(tmp_path / "clip.mkv", "audio") == packets_of(tmp_path / "big.mkv", "audio")

    def test_feature_subtitles_attachments_and_chapters(self, tmp_path: Path) -> None:
        """A file as Matroska has them: the text and font are copied as they are."""
        (tmp_path / "clip.srt").write_text("1\n00:00:00,040 --> 00:00:00,080\nHello\n")
        chapter = {"id": 1, "start": 0, "end": 40, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
        with av.open(str(tmp_path / "clip.mkv"), "w") as output, av.open(str(tmp_path / "clip.srt")) as text:
            stream = output.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            subtitles = output.add_stream_from_template(text.streams.subtitles[0])
            output.add_attachment("font.ttf", "font/ttf", b"the font")
            output.set_chapters([chapter])
            for pts in range(3):
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts = pts
                output.mux(stream.encode(frame))
            for packet in text.demux():
                if packet.size:
                    packet.stream = subtitles
                    output.mux(packet)
            output.mux(stream.encode(None))
        upscale_video(tmp_path / "clip.mkv", tmp_path / "big.mkv", nearest, settings())
        assert packets_of(tmp_path / "big.mkv", "subtitle") == packets_of(tmp_path / "clip.mkv", "subtitle") != []
        with av.open(str(tmp_path / "big.mkv")) as container:
            assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
            (attached,) = container.streams.attachments
            assert (attached.name, attached.mimetype, attached.data) == ("font.ttf", "font/ttf", b"the font")


class TestErrors:
    def test_exception_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_bytes(b"hello" * 100)
        (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")  # names another file
        make_video(tmp_path / "clip.mp4", [bars()])
        (tmp_path / "cut.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:500])
        for name in ("text.mp4", "list.mp4", "cut.mp4"):
            with pytest.raises(UserError, match=rf"{name}: FFmpeg: "):
                upscale_video(tmp_path / name, tmp_path / "big.mp4", nearest, settings())
        with pytest.raises(UserError, match=r"gone\.mp4: no such file"):
            upscale_video(tmp_path / "gone.mp4", tmp_path / "big.mp4", nearest, settings())
        assert not (tmp_path / "big.mp4").exists()

    def test_exception_too_large(self, tmp_path: Path) -> None:
        make_video(tmp_path / "clip.mp4", [bars()])
        with pytest.raises(UserError, match=r"clip\.mp4: .* 0.001 million pixels"):
            upscale_video(tmp_path / "clip.mp4", tmp_path / "big.mp4", nearest, settings(max_pixels=1000))

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
    def test_exception_nothing_is_left(self, tmp_path: Path, error: type[BaseException]) -> None:
        make_video(tmp_path / "clip.mp4", [bars()] * 5, "yuv420p", sound="aac")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "big.mp4").write_bytes(b"old")
        calls = []

        def upscale(arrays: list[np.ndarray]) -> list[np.ndarray]:
            calls.append(1)
            if len(calls) == 3:
                raise error
            return nearest(arrays)

        with pytest.raises(error):
            upscale_video(tmp_path / "clip.mp4", tmp_path / "out" / "big.mp4", upscale, settings())
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["big.mp4"]
        assert (tmp_path / "out" / "big.mp4").read_bytes() == b"old"

    def test_exception_settings(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--codec 'mpeg2video': .*libx264"):
            settings(codec="mpeg2video")
        with pytest.raises(UserError, match="--crf 64"):
            settings(crf=64)
        make_video(tmp_path / "clip.mp4", [bars()])
        with pytest.raises(UserError, match=r"big\.webm: .* one of \.mp4"):
            upscale_video(tmp_path / "clip.mp4", tmp_path / "big.webm", nearest, settings())

    def test_exception_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "av", None)
        with pytest.raises(UserError, match=r"pip install 'gramgan-plugin\[video\]'"):
            upscale_video(tmp_path / "clip.mp4", tmp_path / "big.mp4", nearest, settings())


def test_many_videos(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", [bars()] * 2, "yuv420p")
    (tmp_path / "b.mp4").write_bytes(b"hello" * 100)
    make_video(tmp_path / "c.mp4", [bars()], "yuv420p")
    jobs = [Job(tmp_path / f"{name}.mp4", tmp_path / "out" / f"{name}.mp4") for name in "abc"]
    jobs.append(Job(tmp_path / "d.mp4", tmp_path / "out" / "d.mp4", "a clash"))
    summary = Summary()
    run_videos(jobs, nearest, settings(), summary)
    assert summary.written == 2
    assert summary.megapixels == pytest.approx(3 * 96 * 256 / 1e6)
    assert [path.name for path, _ in summary.failed] == ["b.mp4", "d.mp4"]
    assert summary.failed[0][1].startswith("FFmpeg: invalid data")
    run_videos(jobs[:1], nearest, settings(skip_existing=True), summary)
    assert summary.skipped == 1
