import pytest

from gramgan_plugin.config.load import apply_override, find_option_file, load_options, merge
from gramgan_plugin.errors import OptionError


class TestFindOptionFile:
    @pytest.mark.parametrize("name", ["train_gramgan_x4", "train_gramgan_x4.yml", "options/train_gramgan_x4.yml"])
    def test_shipped_files_from_anywhere(self, name, workdir):
        assert find_option_file(name).read_text().splitlines()[1].startswith("# Gram-GAN x4 on DIV2K")

    def test_the_working_directory_comes_first(self, workdir):
        (workdir / "options").mkdir()
        (workdir / "options/train_gramgan_x4.yml").write_text("name: mine\n")
        assert load_options(["options/train_gramgan_x4.yml"]) == {"name": "mine"}

    def test_exception(self, workdir):
        with pytest.raises(OptionError, match=r"^train_gramgann_x4.yml: .*did you mean 'train_gramgan_x4.yml'"):
            find_option_file("train_gramgann_x4.yml")
        with pytest.raises(OptionError, match=r"^elsewhere/train_gramgan_x4.yml: no such option file"):
            find_option_file("elsewhere/train_gramgan_x4.yml")


class TestMerge:
    def test_left_to_right(self, workdir):
        (workdir / "a.yml").write_text("name: a\ntrain: {x: 1, y: {z: 1}}\n")
        (workdir / "b.yml").write_text("train: {y: {w: 2}, v: [3]}\n")
        assert load_options(["a.yml", "b.yml"]) == {"name": "a", "train": {"x": 1, "y": {"z": 1, "w": 2}, "v": [3]}}

    def test_another_type_replaces_the_section(self):
        old, new = {"type": "GANLoss", "gan_type": "vanilla"}, {"type": "MaskedRaGANLoss", "mask": None}
        assert merge({"gan_opt": old}, {"gan_opt": new}) == {"gan_opt": new}
        assert merge({"gan_opt": old}, {"gan_opt": {"loss_weight": 1}}) == {"gan_opt": {**old, "loss_weight": 1}}

    @pytest.mark.parametrize("text", ["", "- 1\n", "just words\n"])
    def test_exception(self, text, workdir):
        (workdir / "a.yml").write_text(text)
        with pytest.raises(OptionError, match=r"^a\.yml: .*mapping"):
            load_options(["a.yml"])

    def test_not_text(self, workdir):
        (workdir / "a.yml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(OptionError, match=r"a\.yml: cannot be read"):
            load_options(["a.yml"])


class TestOtherFiles:
    TOML = 'name = "x"\nscale = 4\n[train.optim_g]\nlr = 1e-4\n'

    @pytest.mark.parametrize("name", ["x.toml", "x.TOML", "x.yml", "x"])
    def test_toml(self, name, workdir):
        (workdir / name).write_text(self.TOML)
        with pytest.raises(OptionError, match=rf"^{name}: TOML, .* `lr: 1e-4`"):
            load_options([name])

    def test_one_line_of_it(self, workdir):
        (workdir / "x.yml").write_text('name = "x"\n')  # YAML takes this for a text
        with pytest.raises(OptionError, match=r"x\.yml: TOML"):
            load_options(["x.yml"])

    def test_more_than_a_megabyte(self, workdir):
        (workdir / "a.yml").write_text("name: " + "x" * 10_000_000)
        with pytest.raises(OptionError, match=r"^a\.yml: longer than 1 MB"):
            load_options(["a.yml"])

    def test_a_user_whom_nobody_knows(self, workdir):
        with pytest.raises(OptionError, match=r"^~nouser/x: no such option file"):
            load_options(["~nouser/x"])


class TestTemplates:
    """`{}x4`, whose quotes the shell takes from a command line."""

    def test_on_the_command_line(self):
        options = {"datasets": {"val": {}}}
        apply_override(options, "datasets:val:filename_tmpl={}x4")
        apply_override(options, "datasets:val:io_backend={}")
        assert options == {"datasets": {"val": {"filename_tmpl": "{}x4", "io_backend": {}}}}

    def test_in_a_file(self, workdir):
        (workdir / "o.yml").write_text("datasets:\n  val:\n    filename_tmpl: {}x4\n")
        with pytest.raises(OptionError, match=r"^o\.yml, line 3: .*needs quotes, such as '\{\}x4'"):
            load_options(["o.yml"])


class TestOverride:
    @pytest.mark.parametrize(
        ("override", "value"),
        [
            ("train:lr=1e-4", 1e-4),
            ("train:lr=!!float 5", 5.0),
            ("train:lr=3", 3),
            ("train:lr=~", None),
            ("train:lr=true", True),
            ("train:lr=[1, 2]", [1, 2]),
            ("train:lr=a=b", "a=b"),
            ("train : lr = x", "x"),
        ],
    )
    def test_typed_by_yaml(self, override, value):
        options = {"train": {"lr": 0.5}}
        apply_override(options, override)
        assert options["train"]["lr"] == value
        assert type(options["train"]["lr"]) is type(value)

    def test_exception(self):
        with pytest.raises(OptionError, match=r"'trian'; did you mean 'train'"):
            apply_override({"train": {}}, "trian:lr=1")
        with pytest.raises(OptionError, match=r"colons: train:total_iter=5$"):
            apply_override({"train": {}}, "train.total_iter=5")
        with pytest.raises(OptionError, match=r"give it whole: .*train:d_penalty_opt=\{type: "):
            apply_override({"train": {}}, "train:d_penalty_opt:kind=r1")
        with pytest.raises(OptionError, match=r"no section 'train:lr'"):
            apply_override({"train": {"lr": 1}}, "train:lr:x=1")
        with pytest.raises(OptionError, match=r"expected KEY:SUBKEY=VALUE"):
            apply_override({}, "train:lr")
        with pytest.raises(OptionError, match=r"could not determine a constructor"):
            apply_override({"a": 1}, "a=!!python/name:os.system")
