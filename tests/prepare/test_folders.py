from pathlib import Path

import pytest

from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.folders import Partners, folder_photos, folders_photos


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(photos: list[tuple[str, Path]]) -> list[str]:
    return [name for name, _ in photos]


class TestFolderPhotos:
    def test_smoke(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/a.jpg", "sub/deep/c.webp", ".git/d.png")
        assert names(folder_photos(tmp_path)) == ["a.jpg", "b.PNG"]
        assert names(folder_photos(tmp_path, recursive=True)) == ["a.jpg", "b.PNG", "sub/a.jpg", "sub/deep/c.webp"]
        assert dict(folder_photos(tmp_path, recursive=True))["sub/a.jpg"] == tmp_path / "sub" / "a.jpg"

    def test_feature_links(self, tmp_path: Path) -> None:
        elsewhere = touch(tmp_path / "elsewhere", "x.png", "more/y.png")
        folder = touch(tmp_path / "photos", "a.png", "sub/b.png")
        (folder / "to_file.png").symlink_to(elsewhere / "x.png")
        (folder / "to_folder").symlink_to(elsewhere)
        (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
        (folder / "itself.png").symlink_to(folder / "itself.png")
        (folder / "sub" / "round").symlink_to(folder)
        (folder / "folder.png").mkdir()
        plain = ["a.png", "itself.png", "nowhere.png", "to_file.png"]
        assert names(folder_photos(folder)) == plain
        assert names(folder_photos(folder, recursive=True)) == sorted(
            [*plain, "sub/b.png", "to_folder/x.png", "to_folder/more/y.png"]
        )

    def test_feature_names_of_all_kinds(self, tmp_path: Path) -> None:
        kinds = ["émile.png", "写真.jpg", "a b\n.png", "x" * 251 + ".png", "a.b.c.png"]
        touch(tmp_path, *kinds)
        assert names(folder_photos(tmp_path)) == sorted(kinds)

    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            folder_photos(tmp_path / "none")
        touch(tmp_path, "notes.txt")
        with pytest.raises(UserError, match=r"no images in it \(.*--recursive"):
            folder_photos(tmp_path)


class TestFoldersPhotos:
    def test_feature_same_names(self, tmp_path: Path) -> None:
        one, two = touch(tmp_path / "DIV2K", "0001.png"), touch(tmp_path / "Flickr2K", "0001.png")
        assert names(folders_photos([one])) == ["0001.png"]
        assert names(folders_photos([two, one])) == ["Flickr2K/0001.png", "DIV2K/0001.png"]
        three = touch(tmp_path / "more" / "DIV2K", "0001.png")
        assert names(folders_photos([one, three])) == ["1-DIV2K/0001.png", "2-DIV2K/0001.png"]

    def test_exception(self, tmp_path: Path) -> None:
        one = touch(tmp_path / "one", "a.png")
        with pytest.raises(UserError, match="given twice"):
            folders_photos([one, tmp_path / "one" / ".." / "one"])


class TestPartners:
    def test_feature(self, tmp_path: Path) -> None:
        hr = touch(tmp_path / "hr", "0001.png", "0002.png", "0003.jpg")
        lq = touch(tmp_path / "lq", "0001x4.png", "0002.png", "0003x4.jpg", "0003.png")
        find = Partners([hr], [lq], 4)
        assert [find(name).name for name in ("0001.png", "0002.png", "0003.jpg")] == [
            "0001x4.png",
            "0002.png",
            "0003x4.jpg",
        ]
        with pytest.raises(PhotoError, match=r"no LQ photo: neither 0001x2.png nor 0001.png"):
            Partners([hr], [lq], 2)("0001.png")

    def test_feature_subfolders_and_several(self, tmp_path: Path) -> None:
        one, two = touch(tmp_path / "one", "a/1.png", "b/1.png"), touch(tmp_path / "two", "1.png")
        lq_one = touch(tmp_path / "LR_bicubic", "X4/a/1x4.png", "X4/b/1x4.png", "X2/a/1x2.png").parent / "LR_bicubic"
        lq_two = touch(tmp_path / "lq_two", "1.png")
        find = Partners([one, two], [lq_one, lq_two], 4, recursive=True)
        assert find("one/b/1.png") == lq_one / "X4" / "b" / "1x4.png"
        assert find("two/1.png") == lq_two / "1.png"

    def test_exception(self, tmp_path: Path) -> None:
        hr = touch(tmp_path / "hr", "1.png")
        lq = touch(tmp_path / "lq", "1.png", "1.jpg")
        with pytest.raises(PhotoError, match=r"has 2 LQ photos \(1.jpg, 1.png\)"):
            Partners([hr], [lq], 4)("1.png")
        with pytest.raises(UserError, match=r"--lq: 1 folders for 2 of GT"):
            Partners([hr, tmp_path], [lq], 4)
        with pytest.raises(UserError, match="no such folder"):
            Partners([hr], [tmp_path / "none"], 4)
