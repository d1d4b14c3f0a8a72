"""The commands that use a network: upscale, interpolate with a sweep, compare."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from gramgan_plugin.checkpoints.networks import load_network
from gramgan_plugin.cli.main import main
from gramgan_plugin.inference.upscaler import Upscaler
from tests.checkpoints import generators as given_as


@pytest.fixture
def model(workdir: Path) -> str:
    """A file in the old architecture's names, x4."""
    torch.save(given_as.old_arch(given_as.rrdbnet().state_dict()), "model.pth")
    return "model.pth"


@pytest.fixture
def folder(workdir: Path) -> Path:
    """Photos in a folder with subfolders, one of them damaged."""
    photo = skimage.data.astronaut()
    Path("photos/deep").mkdir(parents=True)
    Image.fromarray(photo[:40, :60]).save("photos/a.png")
    Image.fromarray(photo[:33, :41]).save("photos/deep/b.jpg", quality=95)
    Image.fromarray(photo[:20, :20]).convert("L").save("photos/deep/gray.png")
    Image.fromarray(np.dstack([photo[:24, :24], np.full((24, 24), 128, np.uint8)])).save("photos/alpha.png")
    cv2.imwrite("photos/deep/sixteen.png", photo[:16, :16].astype(np.uint16) * 257)
    Path("photos/broken.png").write_bytes(Path("photos/a.png").read_bytes()[:400])
    return Path("photos")


def test_a_folder(model, folder, capsys):
    assert main(["upscale", "photos", "-o", "out", "-m", model, "--engine", "torch"]) == 3
    printed = capsys.readouterr()
    assert "5 written" in printed.out
    assert "photos/broken.png: " in printed.out
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == [
        "out/a.png", "out/alpha.png", "out/deep/b.jpg", "out/deep/gray.png", "out/deep/sixteen.png",
    ]  # fmt: skip
    with Image.open("out/alpha.png") as alpha:
        assert alpha.mode == "RGBA"
    assert cv2.imread("out/deep/sixteen.png", cv2.IMREAD_UNCHANGED).dtype == np.uint16
    with Image.open("out/deep/gray.png") as gray:
        assert (gray.mode, gray.size) == ("L", (80, 80))
    expected = Upscaler(model, engine="torch", precision="fp32")(np.asarray(Image.open("photos/a.png")))
    assert np.array_equal(np.asarray(Image.open("out/a.png")), expected)


def test_again(model, folder, capsys):
    arguments = ["upscale", "photos/a.png", "photos/alpha.png", "-o", "out", "-m", model, "--skip-existing"]
    assert main(arguments) == 0
    before = Path("out/a.png").stat().st_mtime_ns
    assert main(arguments) == 0
    assert Path("out/a.png").stat().st_mtime_ns == before
    assert "2 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("inputs", "output", "problem"),
    [
        (["photos/a.png"], "out.gif", "out.gif: choose one of .png, .jpg, "),
        (["photos/a.png"], "out.pngg", "with a slash"),
        (["photos"], "one.png", "one.png: a file's name, but there are several inputs"),
        (["photos/a.png", "photos/alpha.png"], "one.png", "one.png: a file's name, but there are several inputs"),
    ],
)
def test_outputs_that_are_no_folders(model, folder, capsys, inputs, output, problem):
    assert main(["upscale", *inputs, "-o", output, "-m", model]) == 2
    assert problem in capsys.readouterr().err
    assert not Path(output).exists()


def test_scale_and_format(model, folder, capsys):
    assert main(["upscale", "photos/a.png", "-o", "x.webp", "-m", model, "--scale", "2.5", "--quality", "90"]) == 0
    with Image.open("x.webp") as result:
        assert (result.format, result.size) == ("WEBP", (150, 100))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.png"], "none.png"),
        (["photos/a.png", "--tile", "big"], "--tile: expected auto, 0 or a number of pixels, got 'big'"),
        (["photos/a.png", "--tile", "3"], "tile: expected auto, 0 or at least 32, got 3"),
        (["photos/a.png", "--scale", "-1"], "scale: expected a number from 0.1 to 64"),
        (["photos/a.png", "--device", "tpu"], "device 'tpu' cannot be used here"),
    ],
)
def test_bad_input(model, folder, capsys, arguments, problem):
    assert main(["upscale", *arguments, "-o", "out", "-m", model]) == 2
    assert problem in capsys.readouterr().err
    assert not Path("out").exists()


def test_bad_models(folder, capsys):
    Path("x.pth").write_bytes(b"<html>")
    torch.save(torch.nn.Linear(2, 2).state_dict(), "linear.pth")
    for name, problem in (
        ("x.pth", "a web page"),
        ("linear.pth", "no known architecture"),
        ("RealESRGAN_x4plu", "did you mean 'RealESRGAN_x4plus'"),
    ):
        assert main(["upscale", "photos/a.png", "-o", "out", "-m", name]) == 2
        printed = capsys.readouterr().err
        assert problem in printed
        assert len(printed.splitlines()) == 1


class TestInterpolate:
    @pytest.fixture
    def two(self, workdir):
        """Two related networks in different formats."""
        first, other = given_as.rrdbnet(0).state_dict(), given_as.rrdbnet(1).state_dict()
        second = {name: tensor + 0.1 * other[name] for name, tensor in first.items()}
        torch.save({"params_ema": first}, "a.pth")
        torch.save(given_as.original(second), "b.pth")
        return first, second

    def test_files(self, two, capsys):
        assert main(["interpolate", "a.pth", "b.pth", "--alpha", "0.3", "-o", "c.pth"]) == 0
        assert "c.pth: 0.7 x a.pth + 0.3 x b.pth" in capsys.readouterr().out
        written = torch.load("c.pth", weights_only=True)["params"]
        assert all(torch.allclose(written[name], torch.lerp(two[0][name], two[1][name], 0.3)) for name in two[0])
        assert (
            main(["interpolate", "a.pth", "b.pth", "c.pth", "--weights", "0.5,0.25,0.25", "-o", "d.safetensors"]) == 0
        )
        assert load_network("d.safetensors").architecture == "RRDBNet"

    def test_sweep(self, two, capsys):
        gt = skimage.data.astronaut()[:128, 100:300]
        Image.fromarray(gt).save("gt.png")
        Image.fromarray(gt).resize((50, 32), Image.Resampling.BICUBIC).save("lq.png")
        sweep = ["interpolate", "a.pth", "b.pth", "--alphas", "0:1:0.25", "--image", "lq.png", "--gt", "gt.png", "-o"]
        assert main([*sweep, "strip.png"]) == 0
        rows = json.loads(Path("strip.json").read_text())["rows"]
        assert [row["alpha"] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
        one = Upscaler("a.pth", engine="torch")(np.asarray(Image.open("lq.png")))
        weights = np.array([65.481, 128.553, 24.966]) / 255
        error = np.square((one.astype(float) - gt) @ weights)[4:-4, 4:-4].mean()
        assert rows[0]["psnr_y"] == pytest.approx(10 * np.log10(255**2 / error))
        with Image.open("strip.png") as strip:
            assert strip.width > 4 * 200

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["a.pth"], "give two or more files"),
            (["a.pth", "b.pth", "--weights", "1,2,3"], "--weights: expected 2 numbers, got 3"),
            (["a.pth", "b.pth", "--weights", "1,x"], "--weights: expected a number, got 'x'"),
            (["a.pth", "b.pth", "--weights", "0.5,0.6"], "add up to 1, got 1.1"),
            (["a.pth", "b.pth", "--weights", "0.5,0.5", "--alpha", "1"], "not both"),
            (["a.pth", "b.pth", "--alphas", "0:1"], "--alphas: "),
            (["a.pth", "b.pth", "--alpha", "nan"], "--alpha: expected a number from 0 to 1"),
            (["a.pth", "b.pth", "--weights", "1e9,-999999999"], "add up to 1"),
            (["a.pth", "b.pth", "-o", "./a.pth"], "a.pth: is one of the files"),
            (["a.pth", "b.pth", "-o", "."], ".: a folder or a device"),
            (["a.pth", "b.pth", "--alphas", "0:1:0.1"], "--alphas: needs two files and --image"),
        ],
    )
    def test_bad_input(self, two, capsys, arguments, problem):
        assert main(["interpolate", *arguments]) == 2
        assert problem in capsys.readouterr().err

    def test_strangers(self, two, capsys):
        torch.save(given_as.rrdbnet(5).state_dict(), "stranger.pth")
        assert main(["interpolate", "a.pth", "stranger.pth", "-o", "c.pth"]) == 0
        assert "warning: a.pth and stranger.pth are far apart" in capsys.readouterr().err


class TestCompare:
    def test_files(self, model, folder, capsys):
        gt = skimage.data.astronaut()[:160, :240]
        Image.fromarray(gt).save("gt.png")
        Image.fromarray(gt).resize((60, 40), Image.Resampling.BICUBIC).save("lq.png")
        evil = "<img src=x onerror=alert(1)>.pth"
        torch.save(given_as.rrdbnet(3).state_dict(), evil)
        assert main(["compare", "lq.png", "-m", "bicubic", model, evil, "--gt", "gt.png", "-o", "shown"]) == 0
        page = Path("shown.html").read_text()
        assert "<img src=x" not in page
        assert "&lt;img src=x" in page
        assert page.count("data:image/png;base64,") == 5  # four results and the crops
        assert main(["compare", "lq.png", "-m", "bicubic", "--gt", "gt.png", "-o", "gt"]) == 2
        assert "gt.png: would be overwritten" in capsys.readouterr().err
        assert "http" not in page.replace("http-equiv", "")
        bicubic = np.asarray(Image.open("lq.png").resize((240, 160), Image.Resampling.BICUBIC)).astype(float)
        luma = np.array([65.481, 128.553, 24.966]) / 255
        error = np.square((bicubic - gt) @ luma)[4:-4, 4:-4].mean()
        (row,) = re.findall(r"<td>bicubic</td><td>([\d.]+)</td>", page)
        assert float(row) == pytest.approx(10 * np.log10(255**2 / error), abs=0.02)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["-o", "photos/a"], "photos/a.png: would be overwritten"),
            (["-o", "."], ".: a folder"),
            (["--scale", "nan"], "scale: expected a number from 0.1 to 64"),
        ],
    )
    def test_bad_input(self, model, folder, capsys, arguments, problem):
        before = Path("photos/a.png").read_bytes()
        assert main(["compare", "photos/a.png", "-m", model, *arguments]) == 2
        assert problem in capsys.readouterr().err
        assert Path("photos/a.png").read_bytes() == before

    def test_one_pixel_and_a_model_called_gt(self, workdir, capsys):
        torch.save(given_as.rrdbnet().state_dict(), "GT.pth")
        Image.new("RGB", (1, 1), (9, 8, 7)).save("one.png")
        Image.new("RGB", (4, 4), (9, 8, 7)).save("four.png")
        assert main(["compare", "one.png", "-m", "GT.pth", "--gt", "four.png", "-o", "shown"]) == 0
        page = Path("shown.html").read_text()
        assert "nan" not in page
        assert "GT (2)" in page

    def test_a_gt_that_is_too_small(self, model, folder, capsys):
        assert main(["compare", "photos/a.png", "-m", model, "--gt", "photos/a.png"]) == 2
        assert "photos/a.png: 60x40 pixels, smaller" in capsys.readouterr().err
