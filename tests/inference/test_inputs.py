import errno
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.inputs import Job, find_inputs

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def pairs(jobs: list[Job]) -> dict[str, str]:
    """Source -> target, with '/'; none has a problem."""
    assert not [job for job in jobs if job.problem]
    return {job.source.as_posix(): job.target.as_posix() for job in jobs}


def problems(jobs: list[Job]) -> dict[str, str]:
    return {job.source.as_posix(): job.problem for job in jobs if job.problem}


class TestNames:
    def test_feature_files(self, workdir: Path) -> None:
        touch("a/one.JPG", "two.png", "three.heic", "movie.webm", "clip.mp4", "noname")
        jobs = find_inputs(
            ["a/one.JPG", "two.png", "three.heic", "movie.webm", "clip.mp4", "noname"], Path("out"), "_x4"
        )
        assert pairs(jobs) == {
            "a/one.JPG": "out/one_x4.jpg",
            "two.png": "out/two_x4.png",
            "three.heic": "out/three_x4.png",
            "movie.webm": "out/movie_x4.mkv",
            "clip.mp4": "out/clip_x4.mp4",
            "noname": "out/noname_x4.png",
        }
        assert [job.is_video for job in jobs] == [False, False, False, True, True, False]

    def test_feature_format(self, workdir: Path) -> None:
        touch("a.jpg", "clip.mp4")
        jobs = find_inputs(["a.jpg", "clip.mp4"], Path("out"), form="WebP")
        assert pairs(jobs) == {"a.jpg": "out/a.webp", "clip.mp4": "out/clip.mp4"}

    def test_feature_folder_keeps_its_structure(self, workdir: Path) -> None:
        touch("in/a.png", "in/sub/deep/b.tiff", "in/.hidden/c.png", "in/.d.png", "in/notes.txt", "in/clip.mp4")
        assert pairs(find_inputs(["in"], Path("out"))) == {
            "in/a.png": "out/a.png",
            "in/sub/deep/b.tiff": "out/sub/deep/b.tiff",
        }

    def test_feature_several_folders(self, workdir: Path) -> None:
        touch("one/a.png", "two/a.png", "b.png")
        assert pairs(find_inputs(["one", "two", "b.png"], Path("out"))) == {
            "one/a.png": "out/one/a.png",
            "two/a.png": "out/two/a.png",
            "b.png": "out/b.png",
        }

    def test_feature_globs(self, workdir: Path) -> None:
        touch("in/a.png", "in/b.jpg", "in/c.txt", "in/x/d.png", "in/y/d.png", "in/y/z/e.png")
        assert pairs(find_inputs(["in/*.*"], Path("out"))) == {"in/a.png": "out/a.png", "in/b.jpg": "out/b.jpg"}
        assert pairs(find_inputs(["in/*/d.png"], Path("out"))) == {
            "in/x/d.png": "out/x/d.png",
            "in/y/d.png": "out/y/d.png",
        }
        assert len(pairs(find_inputs(["in/**/*"], Path("out")))) == 5
        assert pairs(find_inputs(["in/y*"], Path("out"))) == {
            "in/y/d.png": "out/y/d.png",
            "in/y/z/e.png": "out/y/z/e.png",
        }

    def test_feature_a_name_that_looks_like_a_glob(self, workdir: Path) -> None:
        touch("photo[1].png", "photo1.png")
        assert pairs(find_inputs(["photo[1].png"], Path("out"))) == {"photo[1].png": "out/photo[1].png"}

    def test_feature_one_file_to_a_named_one(self, workdir: Path) -> None:
        touch("a.png", "clip.mkv")
        assert pairs(find_inputs(["a.png"], Path("big/a.webp"))) == {"a.png": "big/a.webp"}
        assert pairs(find_inputs(["clip.mkv"], Path("big.mp4"))) == {"clip.mkv": "big.mp4"}
        assert pairs(find_inputs(["a.png"], "v1.two/")) == {"a.png": "v1.two/a.png"}
        both = find_inputs(["a.png", "clip.mkv"], "out", form="mp4")
        assert pairs(both) == {"a.png": "out/a.png", "clip.mkv": "out/clip.mp4"}
        assert pairs(find_inputs(["a.png"], Path("v1.5"))) == {"a.png": "v1.5/a.png"}

    def test_feature_given_twice(self, workdir: Path) -> None:
        touch("a.png")
        assert len(find_inputs(["a.png", "./a.png", "*.png"], Path("out"))) == 1


class TestOwnResults:
    def test_feature_output_within_the_input(self, workdir: Path) -> None:
        touch("in/a.png", "in/out/a.png", "in/out/sub/b.png")
        assert pairs(find_inputs(["in"], Path("in/out"))) == {"in/a.png": "in/out/a.png"}

    def test_feature_results_beside_their_sources(self, workdir: Path) -> None:
        touch("in/a.jpg", "in/a_x4.png", "in/b.png", "in/b.jpg", "in/b_png_x4.png", "in/c_x4.png", "in/sub/d_x4.png")
        jobs = find_inputs(["in"], Path("in"), "_x4", "png")
        assert pairs(jobs) == {
            "in/a.jpg": "in/a_x4.png",
            "in/b.jpg": "in/b_jpg_x4.png",
            "in/b.png": "in/b_png_x4.png",
            "in/c_x4.png": "in/c_x4_x4.png",
            "in/sub/d_x4.png": "in/sub/d_x4_x4.png",
        }

    def test_exception_would_overwrite_itself(self, workdir: Path) -> None:
        touch("in/a.png")
        for inputs, output in ((["in"], "in"), (["in/a.png"], "in"), (["in/a.png"], "in/a.png")):
            with pytest.raises(UserError, match=r"in/a\.png.*choose another --output"):
                find_inputs(inputs, Path(output))

    def test_feature_another_input_is_not_overwritten(self, workdir: Path) -> None:
        touch("in/a.jpg", "in/a_x4.jpg")
        jobs = find_inputs(["in/a.jpg", "in/a_x4.jpg"], Path("in"), "_x4")
        assert list(problems(jobs)) == ["in/a.jpg"]
        assert "would overwrite the input in/a_x4.jpg" in problems(jobs)["in/a.jpg"]


class TestClashes:
    def test_feature_old_suffixes_tell_them_apart(self, workdir: Path) -> None:
        touch("in/a.jpg", "in/a.png", "in/b.png")
        assert pairs(find_inputs(["in"], Path("out"), form="png")) == {
            "in/a.jpg": "out/a_jpg.png",
            "in/a.png": "out/a_png.png",
            "in/b.png": "out/b.png",
        }

    def test_feature_the_second_has_a_problem(self, workdir: Path) -> None:
        touch("one/a.png", "two/a.png", "two/b.png")
        jobs = find_inputs(["one/a.png", "two/a.png", "two/b.png"], Path("out"))
        ((name, problem),) = problems(jobs).items()
        assert name == "two/a.png"
        assert "would be out/a.png, as that of one/a.png" in problem

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the file system ignores case")
    def test_feature_names_that_differ_in_case(self, workdir: Path) -> None:
        touch("in/A.png", "in/a.png", "in/Ä.png", "in/sub/b.png", "in/Sub/B.png")
        assert list(problems(find_inputs(["in"], Path("out")))) == ["in/a.png", "in/sub/b.png"]

    @given(
        st.lists(
            st.tuples(st.sampled_from(["a", "A", "a_jpg", "b"]), st.sampled_from(["png", "jpg", "JPG", "gif"])),
            unique=True,
            min_size=1,
        ),
        st.sampled_from([None, "png"]),
    )
    def test_feature_no_two_results_share_a_name(self, tmp_path_factory, names, form: str | None) -> None:
        folder = tmp_path_factory.mktemp("clash")
        for stem, suffix in names:
            (folder / "in").mkdir(exist_ok=True)
            (folder / "in" / f"{stem}.{suffix}").write_bytes(b"")
        jobs = find_inputs([str(folder / "in")], folder / "out", form=form)
        targets = [str(job.target).lower() for job in jobs if not job.problem]
        assert len(set(targets)) == len(targets)
        assert len(jobs) == len(list((folder / "in").iterdir()))


@needs_links
class TestLinks:
    def test_feature_circles_end(self, workdir: Path) -> None:
        touch("in/a.png", "in/sub/b.png", "outside.png")
        Path("in/up").symlink_to(workdir)
        Path("in/sub/again").symlink_to(workdir / "in")
        Path("in/sub/itself").symlink_to("itself")
        Path("in/also").symlink_to("sub")
        assert set(pairs(find_inputs(["in"], Path("out")))) == {"in/a.png", "in/sub/b.png"}

    def test_feature_links_elsewhere_are_followed_once(self, workdir: Path) -> None:
        touch("in/a.png", "other/b.png", "other/deep/c.png")
        Path("in/one").symlink_to(workdir / "other")
        Path("in/two").symlink_to(workdir / "other/deep")
        Path("other/back").symlink_to(workdir / "in")
        assert set(pairs(find_inputs(["in"], Path("out")))) == {"in/a.png", "in/one/b.png", "in/one/deep/c.png"}

    def test_feature_a_broken_link_is_an_input(self, workdir: Path) -> None:
        touch("in/a.png")
        Path("in/b.png").symlink_to("nothing")
        assert set(pairs(find_inputs(["in"], Path("out")))) == {"in/a.png", "in/b.png"}

    def test_feature_results_do_not_leave_the_output(self, workdir: Path) -> None:
        touch("in/sub/a.png", "in/b.png")
        Path("elsewhere").mkdir()
        Path("out").mkdir()
        Path("out/sub").symlink_to(workdir / "elsewhere")
        assert list(problems(find_inputs(["in"], Path("out")))) == ["in/sub/a.png"]

    def test_feature_dots_in_a_glob(self, workdir: Path) -> None:
        touch("in/one/a.png", "in/b.png")
        for pattern in ("in/*/../b.png", "in/*/..", "in/o*/../one"):
            for job in find_inputs([pattern], Path("out")):
                assert job.problem or job.target.resolve().is_relative_to((workdir / "out").resolve())


class TestErrors:
    def test_exception_missing(self, workdir: Path) -> None:
        Path("empty").mkdir()
        for text, what in (
            ("no.png", "no such file or folder"),
            ("*.png", "no such file"),
            ("empty", "no pictures in it"),
            ("no\x1b[2J.png", r"no\\x1b\[2J"),
        ):
            with pytest.raises(UserError, match=what):
                find_inputs([text], Path("out"))

    def test_exception_a_file_beside_the_input(self, workdir: Path) -> None:
        """It may be somebody's photo; with a suffix, or in another folder, it is an earlier result."""
        touch("a.png", "a.jpg", "a_x4.jpg", "v.avi", "v.mkv", "out/a.jpg")
        for source, options, problem in (
            ("a.png", {"form": "jpg"}, "a.jpg is there beside the input; choose another --output or a --suffix"),
            ("v.avi", {}, "v.mkv is there beside the input; choose another --output or a --suffix"),
            ("a.png", {"form": "jpg", "suffix": "_x4"}, ""),
            ("a.png", {"form": "webp"}, ""),
        ):
            (job,) = find_inputs([source], Path(), **options)
            assert job.problem == problem
        assert not find_inputs(["a.png"], "out", form="jpg")[0].problem

    def test_exception_naming(self, workdir: Path) -> None:
        touch("a.png", "b.png", "clip.mp4", "out.txt")
        for inputs, output, options, what in (
            (["a.png"], "out", {"suffix": "/../x"}, "--suffix"),
            (["a.png"], "out", {"form": "exe"}, "--format 'exe': must be one of avif, bmp, .*webp$"),
            (["a.png"], "new.pngg", {}, "new.pngg: choose one of .png, .*or end the name of a folder with a slash"),
            (["clip.mp4"], "new.webm", {}, "new.webm: choose one of .mp4, .m4v, .mov, .mkv, or end"),
            (["clip.mp4"], "new.mp4", {"form": "mkv"}, "is not --format mkv"),
            (["a.png"], "a.mp4", {}, "for a.png choose one of .png"),
            (["clip.mp4"], "a.png", {}, "for clip.mp4 choose one of .mp4"),
            (["a.png"], "b.jpg", {"form": "png"}, "is not --format png"),
            (["a.png", "b.png"], "out.txt", {}, "out.txt: a file; give a folder"),
        ):
            with pytest.raises(UserError, match=what):
                find_inputs(inputs, Path(output), **options)

    def test_feature_a_folder_that_cannot_be_read(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch("in/a.png", "in/closed/b.png")
        scandir = os.scandir

        def refuse(folder: Path):
            if Path(folder).name == "closed":
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        jobs = find_inputs(["in"], Path("out"))
        assert [job.source.name for job in jobs] == ["a.png", "closed"]
        assert problems(jobs)["in/closed"].startswith("the folder: permission denied")
        with pytest.raises(UserError, match=r"in/closed: the folder: permission denied"):
            find_inputs(["in/closed"], Path("out"))
