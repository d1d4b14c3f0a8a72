"""`basicsr benchmark`: values against BasicSR's own functions, and what it leaves behind."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from gramgan_plugin.cli.main import main
from tests.checkpoints import generators as given_as
from tests.training.two_processes import basicsr as command
from tests.training.two_processes import together

DATA = Path(os.environ.get("GRAMGAN_TEST_DATA", "../shared/data"))


@pytest.fixture
def sets(workdir) -> Path:
    """Two sets of two photos each: one with GT alone, one in BasicSR's layout with LQ."""
    from basicsr.utils.matlab_functions import imresize

    photos = {"astronaut": skimage.data.astronaut(), "coffee": skimage.data.coffee(), "cat": skimage.data.chelsea()}
    for name, image in photos.items():
        gt = image[40:253, 100:325]  # 213x225: cut to 212x224
        for place in ("data/Set14/HR", "data/Set5/GTmod12", "data/Set5/LRbicx4"):
            Path(place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(gt).save(f"data/Set14/HR/{name}.png")
        cut = gt[:212, :224]
        Image.fromarray(cut).save(f"data/Set5/GTmod12/{name}.png")
        lq = imresize(cut / 255, 0.25)
        Image.fromarray((np.clip(lq, 0, 1) * 255).round().astype(np.uint8)).save(f"data/Set5/LRbicx4/{name}.png")
    return Path("data")


@pytest.fixture
def model(workdir) -> str:
    torch.save({"params": given_as.rrdbnet(3).state_dict()}, "net_g_100.pth")
    return "net_g_100.pth"


def results(folder: str) -> dict[tuple[str, str, str], dict[str, float]]:
    rows = json.loads(Path(folder, "results.json").read_text())["rows"]
    return {(row["model"], row["set"], row["metric"]): row["per_image"] for row in rows}


def run(*arguments: str) -> int:
    return main(["benchmark", *arguments, "--device", "cpu"])


class TestValues:
    def test_as_basicsr_measures(self, sets, model, capsys):
        from basicsr.metrics.niqe import calculate_niqe
        from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim

        arguments = ("-m", "bicubic", model, "--data", "data", "--metrics", "psnr_y,ssim_y,psnr,ssim,niqe,lr_psnr")
        assert run(*arguments, "-o", "report", "--save-images") == 0
        found = results("report")
        for label in ("bicubic", "net_g_100"):
            for name in ("astronaut", "coffee", "cat"):
                sr = cv2.imread(f"report/images/Set5/{label}/{name}.png")
                gt = cv2.imread(f"data/Set5/GTmod12/{name}.png")
                values = {
                    "psnr_y": calculate_psnr(sr, gt, 4, test_y_channel=True),
                    "ssim_y": calculate_ssim(sr, gt, 4, test_y_channel=True),
                    "psnr": calculate_psnr(sr, gt, 4),
                    "ssim": calculate_ssim(sr, gt, 4),
                    "niqe": calculate_niqe(sr, 4),
                }
                for metric, value in values.items():
                    assert found[label, "Set5", metric][name] == pytest.approx(value, abs=1e-4), metric
        # LQ that is made is that of BasicSR's layout.
        for (label, dataset, metric), values in found.items():
            if dataset == "Set14":
                assert values == pytest.approx(found[label, "Set5", metric])
        assert found["bicubic", "Set5", "lr_psnr"]["cat"] > 30

    def test_the_network_itself(self, sets, model):
        assert run("-m", model, "--data", "data/Set5", "--metrics", "psnr_y", "-o", "report", "--save-images") == 0
        lq = torch.from_numpy(np.asarray(Image.open("data/Set5/LRbicx4/cat.png")).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            sr = given_as.rrdbnet(3)(lq).clamp(0, 1).mul(255).round()[0].permute(1, 2, 0).byte().numpy()
        assert np.array_equal(np.asarray(Image.open("report/images/Set5/net_g_100/cat.png")), sr)

    def test_as_basicsr_test(self, sets, model, write_options):
        """The same numbers as `basicsr test -opt`."""
        metrics = {
            "psnr_y": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
            "ssim_y": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
            "niqe": {"type": "calculate_niqe", "crop_border": 4},
            "texture": {"type": "calculate_texture_distance", "crop_border": 4},
        }
        block = {"name": "Set5", "type": "PairedSRDataset", "io_backend": {"type": "disk"}}
        folders = {"dataroot_gt": "data/Set5/GTmod12", "dataroot_lq": "data/Set5/LRbicx4"}
        network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4}
        options = {
            "name": "net_g_100",
            "model_type": "GramGANModel",
            "scale": 4,
            "num_gpu": 0,
            "datasets": {"test_1": block | folders},
            "network_g": network,
            "path": {"pretrain_network_g": model},
            "val": {"metrics": metrics},
        }
        assert main(["test", "-opt", write_options(options)]) == 0
        assert run("-m", "bicubic", model, "--data", "data/Set5", "--metrics", ",".join(metrics), "-o", "r") == 0
        theirs = results("results/net_g_100")
        assert len(theirs) == 2 * len(metrics)
        for key, values in results("r").items():
            assert values == pytest.approx(theirs[key], abs=1e-4), key

    @pytest.mark.skipif(not (DATA / "Set5").is_dir(), reason="GRAMGAN_TEST_DATA names no folder of real sets")
    def test_the_published_baseline(self, workdir):
        """As MATLAB's bicubic gives on the same files; of BSD100 there is only GT."""
        data = DATA if DATA.is_absolute() else Path(__file__).parents[2] / DATA
        options = ("--sets", "Set5,Set14,BSD100", "--metrics", "psnr_y,ssim_y", "-o", "report")
        assert run("-m", "bicubic", "--data", str(data), *options) == 0
        rows = json.loads(Path("report/results.json").read_text())["rows"]
        means = {(row["set"], row["metric"]): row["mean"] for row in rows}
        expected = {("Set5", "psnr_y"): 28.397, ("Set5", "ssim_y"): 0.8115}
        expected |= {("Set14", "psnr_y"): 26.088, ("Set14", "ssim_y"): 0.7050}
        expected |= {("BSD100", "psnr_y"): 25.957, ("BSD100", "ssim_y"): 0.6680}
        for key, value in expected.items():
            assert means[key] == pytest.approx(value, abs=6e-4 if key[1] == "psnr_y" else 6e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes(sets, model, count):
    """They write what one would: also with fewer images than processes, and images that cannot be measured."""
    Path("data/Set14/HR/coffee.png").write_bytes(b"no image")
    cat = np.asarray(Image.open("data/Set5/LRbicx4/cat.png"))  # the second image: another process's
    Image.fromarray(cat // 2).save("data/Set5/LRbicx4/cat.png")
    arguments = ("benchmark", "-m", "bicubic", model, "--data", "data", "--metrics", "psnr_y,niqe", "--device", "cpu")
    ends = together(count, command, *arguments, "--launcher", "pytorch", "--save-images", "-o", "shared")
    assert [end.code for end in ends] == [3] + [0] * (count - 1), ends[0].stderr
    assert "Set14: coffee is left out of the mean of psnr_y" in ends[0].stderr
    assert [end.stderr for end in ends[1:]] == [""] * (count - 1)
    assert main([*arguments, "-o", "single"]) == 3
    shared, single = results("shared"), results("single")
    assert list(shared) == list(single)
    for key, values in single.items():
        assert list(shared[key]) == list(values) == sorted(values), "in the order of the set's images"
        assert shared[key] == pytest.approx(values, rel=1e-9)
    assert "LQ of Set5: BasicSR's, not recorded; up to " in Path("shared/table.md").read_text()
    for name in ("table.md", "table.tex"):
        assert Path("shared", name).read_text() == Path("single", name).read_text()
    pictures = [re.findall(r"data:image/[^'\"]+", Path(out, "index.html").read_text()) for out in ("shared", "single")]
    assert pictures[0] == pictures[1]
    assert len(list(Path("shared/images").rglob("*.png"))) == 10


class TestModels:
    def test_interpolation_and_results(self, sets, model):
        torch.save({"params": given_as.rrdbnet(4).state_dict()}, "other.pth")
        options = ("--data", "data/Set5", "--metrics", "psnr_y")
        assert run("-m", model, "other.pth", f"{model}@1:other.pth", f"{model}@0.3:other.pth", *options, "-o", "r") == 0
        found = results("r")
        assert found["net_g_100@1:other", "Set5", "psnr_y"] == found["net_g_100", "Set5", "psnr_y"]
        main(["interpolate", model, "other.pth", "--alpha", "0.7", "-o", "mixed.pth"])
        assert run("-m", "mixed.pth", *options, "-o", "r2", "--save-images") == 0
        mixed = results("r2")["mixed", "Set5", "psnr_y"]
        assert found["net_g_100@0.3:other", "Set5", "psnr_y"] == mixed
        # Somebody's results, under names with an ending.
        for path in Path("r2/images/Set5/mixed").iterdir():
            path.rename(path.with_name(f"{path.stem}_x4_SR.png"))
        assert run("-m", "r2/images/Set5/mixed", *options, "-o", "r3") == 0
        assert results("r3")["mixed", "Set5", "psnr_y"] == mixed

    def test_what_is_missing_is_said(self, sets, model, capsys):
        Path("theirs/Set5").mkdir(parents=True)
        Image.open("data/Set5/GTmod12/cat.png").save("theirs/Set5/cat.png")
        Image.open("data/Set5/LRbicx4/coffee.png").save("theirs/Set5/coffee.png")
        assert run("-m", model, "theirs", "--data", "data/Set5", "--metrics", "psnr_y", "-o", "r") == 3
        output = capsys.readouterr().out
        left_out = dict(re.findall(r"Set5: (\w+) is left out of the mean of psnr_y: (.*)", output))
        assert "theirs: has no result" in left_out["astronaut"]
        assert "theirs gives 56x53, GT is 224x212" in left_out["coffee"]
        assert "SR equals GT" in left_out["cat"]


def test_a_broken_image(sets, capsys):
    Path("data/Set5/GTmod12/coffee.png").write_bytes(b"no image")
    assert run("-m", "bicubic", "--data", "data/Set5", "--metrics", "psnr_y", "-o", "r") == 3
    assert set(results("r")["bicubic", "Set5", "psnr_y"]) == {"astronaut", "cat"}
    assert re.search(r"Set5: coffee is left out .*: GTmod12/coffee.png: not an image", capsys.readouterr().out)
    for path in Path("r").iterdir():
        assert str(sets.absolute()) not in path.read_text(), "the report has no paths of this machine"


def test_results_of_other_images(sets, capsys):
    """img_1 is another image, not img with an ending."""
    for name in ("img", "img_1"):
        Image.open("data/Set5/GTmod12/cat.png").save(f"data/Set14/HR/{name}.png")
    Path("theirs").mkdir()
    for name in ("img_1", "astronaut_x4", "coffee-net", "catx"):
        Image.new("RGB", (224, 212)).save(f"theirs/{name}.png")
    assert run("-m", "theirs", "--data", "data/Set14", "--metrics", "psnr_y", "-o", "r") == 3
    assert set(results("r")["theirs", "Set14", "psnr_y"]) == {"img_1", "astronaut", "coffee"}
    assert "theirs: has no result of Set14's img" in capsys.readouterr().out


def test_two_folders_of_one_set(sets, capsys):
    for name in ("B100", "BSDS100"):
        Path("data", name).mkdir()
        Image.open("data/Set5/GTmod12/cat.png").save(f"data/{name}/cat.png")
    assert run("-m", "bicubic", "--data", "data", "--metrics", "psnr_y", "-o", "r") == 2
    assert "B100 and BSDS100 are both BSD100" in capsys.readouterr().err


def test_gt_is_not_written_over(sets, capsys):
    Path("x/images/Set5/HR").mkdir(parents=True)
    Image.open("data/Set5/GTmod12/cat.png").save("x/images/Set5/HR/cat.png")
    arguments = ("-m", "bicubic", "--data", "x/images/Set5", "--metrics", "psnr_y", "-o", "x", "--save-images")
    assert run(*arguments) == 2
    assert "x/images: GT is in it" in capsys.readouterr().err


def test_lq_of_another_scale(sets, capsys):
    image = Image.open("data/Set5/LRbicx4/cat.png")
    image.resize((image.width // 2, image.height // 2)).save("data/Set5/LRbicx4/cat.png")
    assert run("-m", "bicubic", "--data", "data/Set5", "--metrics", "psnr_y", "-o", "r") == 3
    assert "cat: LQ of 28x26 is not 1/4 of GT of 224x212" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(sets):
    """With names that mean something to LaTeX."""
    name = "a_b%c&d#e$f^g~h{i}<j>ü"
    Path(name).mkdir()
    Image.open("data/Set5/GTmod12/coffee.png").save(f"{name}/cat.png")
    assert run("-m", "bicubic", name, "--data", "data", "--metrics", "psnr_y,mse,niqe", "-o", "r") == 3
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{r/table.tex}\end{document}"
    Path("x.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_model_that_is_called_gt(sets):
    torch.save({"params": given_as.rrdbnet(3).state_dict()}, "GT.pth")
    assert run("-m", "GT.pth", "--data", "data/Set5", "--metrics", "psnr_y", "-o", "r") == 0
    assert {key[0] for key in results("r")} == {"GT (2)"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-m", "bicubic", "--scale", "0", "--data", "data"], "--scale 0: must be from 1 to 16"),
        (["-m", "bicubic", "--data", "nowhere"], "no such folder"),
        (["-m", "bicubic", "--data", "data", "--sets", ","], "data: no set of images in it"),
        (["-m", "bicubic", "--data", "data", "--sets", "Urban100"], "no set 'Urban100'; there are Set14, Set5"),
        (["-m", "bicubic", "--data", "data", "--metrics", "psnr_x"], "no metric 'psnr_x'; did you mean 'psnr"),
        (["-m", "bicubic", "--data", "data", "--crop", "-1"], "--crop -1: must be at least 0"),
        (["-m", "bicubic", "--data", "data", "--baseline", "x"], "--baseline: no model 'x'"),
        (["-m", "nothing.pth", "--data", "data"], "nothing.pth: neither a file nor a name"),
        (["-m", "net_g_100.pth@2:net_g_100.pth", "--data", "data"], "expected A@SHARE:B"),
        (["-m", "net_g_100.pth", "--scale", "2", "--data", "data"], "net_g_100 has scale 4, not 2"),
        (["-m", "bicubic", "--data", "data", "--merge-scores", "s.csv"], "s.csv, line 2: no model 'x'"),
    ],
)
def test_bad_input(sets, model, capsys, arguments, problem):
    Path("s.csv").write_text("model,set,image,metric,value\nx,Set5,cat,ma,5\n")
    extra = [] if "--metrics" in arguments else ["--metrics", "psnr_y"]
    assert run(*arguments, *extra, "-o", "r") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr benchmark")]
    assert problem in line


def test_a_metric_without_its_weights(sets, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GRAMGAN_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    assert run("-m", "bicubic", "--data", "data/Set5", "-o", "r") == 0
    output = capsys.readouterr().out
    assert "LPIPS is not measured: " in output
    assert "`basicsr weights fetch alexnet` gets it" in output
    assert {key[2] for key in results("r")} == {"psnr_y", "ssim_y", "niqe", "lr_psnr", "texture"}
    assert "LPIPS is not measured" in Path("r/index.html").read_text()
    assert run("-m", "bicubic", "--data", "data/Set5", "--metrics", "psnr_y,lpips", "-o", "r") == 3


def test_scores_from_elsewhere(sets, model, capsys):
    Path("s.csv").write_text("model,set,image,metric,value\nbicubic,Set5,cat,ma,5.5\nbicubic,Set5,coffee,ma,6.5\n")
    options = ("--data", "data/Set5", "--metrics", "psnr_y", "--merge-scores", "s.csv", "-o", "r")
    assert run("-m", "bicubic", model, *options) == 0
    assert results("r")["bicubic", "Set5", "ma"] == {"cat": 5.5, "coffee": 6.5}
    assert "ma ↑" in Path("r/table.md").read_text()
    for column, problem in (("", "the column better says higher or lower for 'x'"), (",lower", None)):
        Path("s.csv").write_text(f"model,set,image,metric,value{column and ',better'}\nbicubic,Set5,cat,x,5{column}\n")
        assert run("-m", "bicubic", *options) == (2 if problem else 0)
        assert problem is None or problem in capsys.readouterr().err
    assert "x ↓" in Path("r/table.md").read_text()


def test_the_kind_of_lq(sets):
    def kinds() -> dict[str, str]:
        assert run("-m", "bicubic", "--data", "data", "--metrics", "psnr_y", "-o", "r") == 0
        return {row["set"]: row["lq"] for row in json.loads(Path("r/results.json").read_text())["rows"]}

    assert kinds() == {
        "Set5": "matlab-bicubic, compared with GT",
        "Set14": "matlab-bicubic, made from GT cut to multiples of 4",
    }
    cat = np.asarray(Image.open("data/Set5/LRbicx4/cat.png")) // 2
    Image.fromarray(cat).save("data/Set5/LRbicx4/cat.png")
    assert kinds()["Set5"].startswith("BasicSR's, not recorded; up to ")
