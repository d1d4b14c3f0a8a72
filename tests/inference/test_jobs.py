import errno
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image as PillowImage

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference import jobs as jobs_module
from gramgan_plugin.inference import picture_batches
from gramgan_plugin.inference.inputs import Job, find_inputs
from gramgan_plugin.inference.jobs import Settings, Summary, _Memory, reason_of, run_jobs

SCALE = 3
PHOTO = skimage.data.astronaut()


def nearest(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array.repeat(SCALE, axis=0).repeat(SCALE, axis=1) for array in arrays]


def settings(**options: object) -> Settings:
    return Settings(SCALE, **{"show": False, "workers": 2, **options})


def write(name: str, samples: np.ndarray) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(samples).save(name)


def crop(number: int, height: int = 12, width: int = 16) -> np.ndarray:
    return PHOTO[number * 20 : number * 20 + height, 100 : 100 + width]


def run(upscale=nearest, inputs=("in",), form: str | None = "png", **options: object) -> Summary:
    return run_jobs(find_inputs(list(inputs), Path("out"), form=form), upscale, settings(**options))


class TestResults:
    def test_feature_folder(self, workdir: Path) -> None:
        for number in range(7):
            write(f"in/{number % 2}/{number}.png", crop(number))
        summary = run()
        assert (summary.written, summary.skipped, summary.failed, summary.exit_code) == (7, 0, [], 0)
        assert summary.megapixels == pytest.approx(7 * 12 * 16 * SCALE**2 / 1e6)
        for number in range(7):
            stored = np.asarray(PillowImage.open(f"out/{number % 2}/{number}.png"))
            assert np.array_equal(stored, nearest([crop(number)])[0])
        assert sorted(path.name for path in Path("out").rglob("*") if path.is_file()) == [f"{n}.png" for n in range(7)]

    def test_feature_sixteen_bits_and_gray(self, workdir: Path) -> None:
        deep = crop(0).astype(np.uint16) * 257 + 5
        Path("in").mkdir()
        cv2.imwrite("in/deep.png", deep[..., ::-1])
        write("in/gray.png", crop(1)[..., 0])
        seen = []
        summary = run(lambda arrays: seen.extend(arrays) or nearest(arrays))
        assert summary.written == 2
        assert {(array.shape, array.dtype.name) for array in seen} == {((12, 16, 3), "uint16"), ((12, 16, 1), "uint8")}
        assert np.array_equal(cv2.imread("out/deep.png", cv2.IMREAD_UNCHANGED)[..., ::-1], nearest([deep])[0])
        assert np.array_equal(np.asarray(PillowImage.open("out/gray.png")), nearest([crop(1)[..., 0]])[0])

    @pytest.mark.parametrize("alpha", ["network", "bicubic"])
    def test_feature_no_fringes(self, workdir: Path, alpha: str) -> None:
        """A white disc on transparent black: a smooth upscaler must find no black beside the white."""
        y, x = np.mgrid[:32, :32]
        disc = ((y - 16) ** 2 + (x - 16) ** 2 < 100).astype(np.uint8) * 255
        write("in/disc.png", np.dstack([disc, disc, disc, disc]))

        def smooth(arrays: list[np.ndarray]) -> list[np.ndarray]:
            sides = [(array.shape[1] * SCALE, array.shape[0] * SCALE) for array in arrays]
            resized = [cv2.resize(a, s, interpolation=cv2.INTER_CUBIC) for a, s in zip(arrays, sides, strict=True)]
            return [r.reshape(*r.shape[:2], -1) for r in resized]

        run(smooth, alpha=alpha)
        stored = np.asarray(PillowImage.open("out/disc.png"))
        assert (stored[..., :3] == 255).all()
        assert np.array_equal(stored[..., 3], cv2.resize(disc, (96, 96), interpolation=cv2.INTER_CUBIC))
        assert len(np.unique(stored[..., 3])) > 20

    def test_feature_opaque_alpha_stays_opaque(self, workdir: Path) -> None:
        write("in/a.png", np.dstack([crop(0), np.full((12, 16), 255, np.uint8)]))
        calls = []
        run(lambda arrays: calls.append(len(arrays)) or nearest(arrays))
        assert calls == [1]
        assert (np.asarray(PillowImage.open("out/a.png"))[..., 3] == 255).all()

    def test_feature_skip_existing(self, workdir: Path) -> None:
        for number in range(3):
            write(f"in/{number}.png", crop(number))
        Path("out").mkdir()
        Path("out/1.png").write_bytes(b"mine")
        summary = run(skip_existing=True)
        assert (summary.written, summary.skipped) == (2, 1)
        assert Path("out/1.png").read_bytes() == b"mine"
        assert run().written == 3
        assert Path("out/1.png").read_bytes() != b"mine"


class TestBatches:
    def test_feature_equal_sizes_together(self, workdir: Path) -> None:
        for number in range(9):
            write(f"in/{number}.png", crop(number) if number % 2 else crop(number, 8, 20))
        sizes = []
        summary = run(lambda arrays: sizes.append([array.shape for array in arrays]) or nearest(arrays), batch_size=4)
        assert summary.written == 9
        assert all(len(set(batch)) == 1 for batch in sizes)
        assert sorted(map(len, sizes)) == [1, 4, 4]

    def test_feature_large_pictures_alone(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(picture_batches, "MOST_IN_BATCH", 12 * 16 * 2)
        for number in range(4):
            write(f"in/{number}.png", crop(number))
        sizes = []
        run(lambda arrays: sizes.append(len(arrays)) or nearest(arrays), batch_size=4)
        assert sizes == [2, 2]

    def test_feature_reading_and_writing_overlap_with_the_network(self, workdir: Path, monkeypatch) -> None:
        """While the network works on the second picture, the third is read, and the first is being written."""
        for number in range(4):
            write(f"in/{number}.png", crop(number))
        read, writing, second = threading.Event(), threading.Event(), threading.Event()
        original_read, original_write = jobs_module.read_picture, jobs_module.write_picture

        def reading(path: Path, most: int):
            if path.name == "2.png":
                read.set()
            return original_read(path, most)

        def write_late(*arguments: object) -> None:
            writing.set()
            assert second.wait(20)
            original_write(*arguments)

        calls = []

        def upscale(arrays: list[np.ndarray]) -> list[np.ndarray]:
            calls.append(1)
            if len(calls) == 2:
                assert read.wait(20)
                assert writing.wait(20)
                second.set()
            return nearest(arrays)

        monkeypatch.setattr(jobs_module, "read_picture", reading)
        monkeypatch.setattr(jobs_module, "write_picture", write_late)
        assert run(upscale).written == 4

    def test_feature_memory_is_given_back(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also that of pictures that fail."""
        for number in range(6):
            write(f"in/{number}.png", crop(number))
        memories = []

        class Recorded(_Memory):
            def __init__(self, most: int) -> None:
                super().__init__(most)
                memories.append(self)

        def upscale(arrays: list[np.ndarray]) -> list[np.ndarray]:
            if np.array_equal(arrays[0], crop(3)):
                raise MemoryError
            assert memories[0].used == sum(array.nbytes for array in arrays) * SCALE**2 * picture_batches.COPIES
            return nearest(arrays)

        Path("out/4.png").mkdir(parents=True)
        monkeypatch.setattr(jobs_module, "_Memory", Recorded)
        monkeypatch.setattr(jobs_module, "available_memory", lambda: 1000)  # less than a result
        assert run(upscale).written == 4
        assert memories[0].used == 0

    def test_feature_memory_is_bounded(self) -> None:
        memory = _Memory(100)
        memory.take(500)  # a single one may be larger
        started = threading.Event()
        waiting = threading.Thread(target=lambda: (started.set(), memory.take(60)))
        waiting.start()
        assert started.wait(20)
        assert waiting.is_alive()
        memory.give_back(500)
        waiting.join(20)
        assert memory.used == 60


class TestFailures:
    def test_feature_the_rest_goes_on(self, workdir: Path) -> None:
        for number in range(4):
            write(f"in/{number}.png", crop(number))
        Path("in/1.png").write_bytes(Path("in/1.png").read_bytes()[:200])
        Path("in/bad\x1b.jpg").write_bytes(b"no image")
        summary = run()
        assert summary.written == 3
        assert summary.exit_code == 3
        lines = summary.lines()
        assert lines[0] == "3 written (0.0 megapixels), 2 failed:"
        assert "in/1.png: cut short" in lines
        assert "in/bad\\x1b.jpg: not an image" in lines

    def test_feature_problems_of_find_inputs(self, workdir: Path) -> None:
        write("a/x.png", crop(0))
        write("b/x.png", crop(1))
        summary = run(inputs=("a/x.png", "b/x.png"))
        assert summary.written == 1
        ((path, problem),) = summary.failed
        assert path == Path("b/x.png")
        assert "would be out/x.png, as that of a/x.png" in problem

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (UserError("no tiles"), "no tiles"),
            (MemoryError(), "out of memory"),
            (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory"),
        ],
    )
    def test_feature_only_the_cause_of_a_batch_fails(self, workdir: Path, error: Exception, reason: str) -> None:
        for number in range(4):
            write(f"in/{number}.png", crop(number))

        def upscale(arrays: list[np.ndarray]) -> list[np.ndarray]:
            if any(np.array_equal(array, crop(2)) for array in arrays):
                raise error
            return nearest(arrays)

        summary = run(upscale, batch_size=4)
        assert (summary.written, summary.failed) == (3, [(Path("in/2.png"), reason)])

    def test_feature_too_large_is_known_before_the_network(self, workdir: Path) -> None:
        write("in/a.png", np.zeros((2, 6000, 3), np.uint8))
        called = []
        summary = run(lambda arrays: called.append(1) or nearest(arrays), form="webp")
        assert not called
        reason = "out/a.webp: 18000x6 pixels are too large for WebP (at most 16383 pixels a side); write PNG"
        assert summary.failed == [(Path("in/a.png"), reason)]

    def test_feature_too_large_for_the_memory(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write("in/a.png", crop(0))
        monkeypatch.setattr(picture_batches, "available_memory", lambda: 1000)
        ((_, reason),) = run().failed
        assert reason.startswith("16x12 pixels, 3 times as large, need about")

    def test_exception_bugs_are_not_swallowed(self, workdir: Path) -> None:
        write("in/a.png", crop(0))
        for result in (lambda arrays: arrays, lambda arrays: [a.astype(float) for a in nearest(arrays)]):
            with pytest.raises(RuntimeError, match=r"\(12, 16, 3\) uint8 became .* not 3 times it"):
                run(result)
        assert not Path("out").exists()

    def test_exception_a_full_disk_ends_the_work(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(3):
            write(f"in/{number}.png", crop(number))

        def full(self: Path, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match="no space left"):
            run()
        assert not list(Path("out").iterdir())

    def test_feature_a_folder_in_the_way_concerns_one_result(self, workdir: Path) -> None:
        for number in range(2):
            write(f"in/{number}.png", crop(number))
        Path("out/0.png").mkdir(parents=True)
        summary = run()
        assert summary.written == 1
        assert [path.name for path, _ in summary.failed] == ["0.png"]

    def test_exception_interrupted(self, workdir: Path) -> None:
        for number in range(6):
            write(f"in/{number}.png", crop(number))
        calls = []

        def upscale(arrays: list[np.ndarray]) -> list[np.ndarray]:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return nearest(arrays)

        before = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            run(upscale)
        assert threading.active_count() == before
        for path in Path("out").iterdir():  # whole results only
            PillowImage.open(path).load()
            assert not path.name.startswith(".")

    def test_feature_reasons(self) -> None:
        assert reason_of(ValueError("a bug")) is None
        assert reason_of(OSError(errno.EMFILE, "Too many open files", "x")) is None
        assert str(reason_of(OSError(errno.EIO, "Input/output error", "x"))).startswith("x: input/output error")

    def test_exception_settings(self) -> None:
        for name, value in {"quality": 0, "batch_size": 0, "alpha": "x", "workers": 0}.items():
            with pytest.raises(UserError, match=f"--{name.replace('_', '-')} '?{value}"):
                run_jobs([], nearest, settings(**{name: value}))


def test_summary_of_nothing() -> None:
    assert run_jobs([], nearest, settings()) == Summary()
    assert Summary(written=2, skipped=1, megapixels=3.25).lines() == [
        "2 written (3.2 megapixels), 1 skipped (the result exists)"
    ]


def test_a_job_of_a_file_that_is_gone(workdir: Path) -> None:
    summary = run_jobs([Job(Path("gone.png"), Path("out.png"))], nearest, settings())
    assert summary.failed == [(Path("gone.png"), "no such file, or a link to none")]


def test_flat_transparency_stays_so(tmp_path):
    """Where alpha is 0 or 255 all around, a network's small errors do not show."""
    alpha = np.zeros((24, 24), np.uint8)
    alpha[:, 12:] = 255
    PillowImage.fromarray(np.dstack([np.full((24, 24, 3), 90, np.uint8), alpha])).save(tmp_path / "a.png")

    def noisy(arrays):
        large = [array.repeat(2, axis=0).repeat(2, axis=1) for array in arrays]
        return [np.clip(array.astype(int) + np.where(array > 128, -2, 2), 0, 255).astype(np.uint8) for array in large]

    jobs = find_inputs([str(tmp_path / "a.png")], tmp_path / "out")
    assert run_jobs(jobs, noisy, Settings(2, show=False)).exit_code == 0
    with PillowImage.open(jobs[0].target) as result:
        values = np.asarray(result)[..., 3]
    assert (values[:, :20] == 0).all()
    assert (values[:, 28:] == 255).all()
