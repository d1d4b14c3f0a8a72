import inspect
import json
import re
import sys
from copy import deepcopy
from importlib.resources import files
from pathlib import Path

import basicsr  # noqa: F401
import jsonschema
import pytest
import torch
import yaml
from basicsr.utils.options import ordered_yaml
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin import archs, losses
from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_options, load_options
from gramgan_plugin.config.annotations import fits
from gramgan_plugin.config.flat import flat_yaml
from gramgan_plugin.config.json_schema import json_schema
from gramgan_plugin.config.options_page import options_page
from gramgan_plugin.config.parameters import parameters_of
from gramgan_plugin.config.schema_datasets import DATASETS, LOADER
from gramgan_plugin.config.schema_models import MODELS
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models import gramgan_model
from gramgan_plugin.models.components import Component
from gramgan_plugin.registries import lookup, registered
from gramgan_plugin.steps.terms import FORMS, PENALTY_FORM, form_of
from gramgan_plugin.utils.yaml_io import parse_yaml
from tests.messages import assert_message

PREFIXES = ("train_", "test_")
SHIPPED = sorted(str(one) for one in files("gramgan_plugin.options").iterdir() if one.name.startswith(PREFIXES))
NAMES = [Path(path).stem for path in SHIPPED]


class TestDeclared:
    def test_gramgan_model_reads_what_is_declared(self):
        """Each key that the sources read from ``train`` is declared, and each that is declared is read."""
        folder = Path(gramgan_model.__file__).parents[1]
        sources = [
            path.read_text()
            for room in ("models", "building", "steps", "training")
            for path in (folder / room).glob("*.py")
        ]
        ours = "\n".join(sources)
        read = set(re.findall(r"""\btrain(?:\.get\(|\[)['"](\w+)['"]""", ours))
        declared = set(MODELS["GramGANModel"].train)
        assert len(read) > 8
        assert read <= declared
        named = {f"{key}_{letter}" for key in re.findall(r"(\w+)_\{letter\}", ours) for letter in "gd"}
        named |= {f"compile_{key}" for key in ("mode", "backend")}
        assert all(f'"{key}"' in ours or key in named for key in declared), declared

    @pytest.mark.parametrize("name", sorted(MODELS))
    def test_a_model_declares_what_its_source_reads(self, name):
        """Keys in the sources of BasicSR's classes, by how they read them."""
        cls = lookup("model", name, "model_type")
        source = "".join(
            inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("basicsr.models")
        )
        train = set(re.findall(r"train_opt(?:\.get\(|\[)'(\w+)'", source))
        top = set(re.findall(r"self\.opt(?:\.get\(|\[)'(\w+)'|\bopt\.get\('(\w+)'", source))
        known = set(MODELS[name].train) | {"ldl_opt"}  # built by SRGANModel, and used by RealESRGANModel alone
        assert train <= known
        general = {"network_g", "network_d", "path", "train", "val", "name", "rank", "dist", "num_gpu", "scale"}
        general |= {"is_train", "world_size", "find_unused_parameters"}
        assert {one for pair in top for one in pair if one} - general <= set(MODELS[name].top)

    @pytest.mark.parametrize("name", sorted(set(DATASETS) - {"PairedSRDataset", "StreamedSRDataset"}))
    def test_a_dataset_declares_what_its_source_reads(self, name):
        source = inspect.getsource(lookup("dataset", name, "type"))
        read = set(re.findall(r"\bopt(?:\.get\(|\[)'(\w+)'", source)) - {"scale", "phase"}
        unread = set(DATASETS[name]) - read - {"gt_size" if name == "RealESRGANDataset" else ""}
        assert read <= set(DATASETS[name])
        # `'color' in self.opt` and the like.
        assert all(f"'{key}'" in source for key in unread)

    def test_every_loss_of_basicsr_and_ours_has_a_form(self):
        ours = [cls for _, cls, package in registered("loss") if package in ("basicsr", "gramgan_plugin")]
        assert all(form_of(cls) in {*FORMS, PENALTY_FORM, "other"} for cls in ours)
        assert form_of(torch.nn.TripletMarginLoss) is None

    def test_every_key_is_explained(self):
        keys = [*LOADER.values(), *(key for keys in DATASETS.values() for key in keys.values())]
        keys += [key for model in MODELS.values() for key in (*model.train.values(), *model.top.values())]
        assert all(key.what for key in keys)

    @pytest.mark.parametrize(("kind", "package"), [("loss", losses), ("arch", archs)])
    def test_our_parameters_are_explained(self, kind, package):
        for name in package.__all__:
            assert all(one.what for one in parameters_of(Component(("x",), kind, {"type": name})).values()), name


class TestAnnotations:
    @pytest.mark.parametrize(
        ("annotation", "good", "bad"),
        [
            (int, [3, -1], ["3", 3.0, True, None, [3]]),
            (float, [3, 0.5, 1e-7], ["0.5", True, None, float("nan")]),
            (bool, [True], [1, "true", None]),
            (str, ["", "x"], [1, None, ["x"]]),
            (list[int], [[], [1]], [["1"], 1, "1", {}]),
            (tuple[float, float], [[0.9, 1]], [[0.9], [0.9, 1, 2], 0.9]),
            (tuple[float, ...], [[], [1, 2, 3]], [["x"]]),
            (dict[str, float], [{"a": 1}], [[1], "a"]),
            (int | None, [None, 2], ["2"]),
            (float | list[float], [1, [1]], ["1"]),
            (inspect.Parameter, [1, "x", None], []),
            (inspect.Parameter | float, [1.0], ["x"]),
        ],
    )
    def test_fits(self, annotation, good, bad):
        assert all(fits(annotation, value) for value in good)
        assert not any(fits(annotation, value) for value in bad)


class TestWarnings:
    def test_wandb(self, tiny_options, monkeypatch):
        tiny_options["logger"]["wandb"] = {"project": None, "resume_id": "abc"}
        (warning,) = check_options(tiny_options)
        assert_message(warning, "logger.wandb.resume_id", "no logger.wandb.project")
        tiny_options["logger"]["wandb"] = {"project": "mine", "resume_id": None}
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(OptionError, match=r"^logger\.wandb\.project: .* is not installed"):
            check_options(tiny_options)
        assert check_options(tiny_options, is_train=False) == []

    @pytest.mark.parametrize(
        ("section", "key", "value", "kind"),
        [
            ("dist_params", "port", 1234, "not used"),
            ("val", "pbar", True, "no progress bar"),
            ("path", "log", "logs", "computed"),
        ],
    )
    def test_read_and_not_used(self, tiny_options, section, key, value, kind):
        tiny_options.setdefault(section, {})[key] = value
        (warning,) = check_options(tiny_options)
        assert_message(warning, f"{section}.{key}", kind)

    def test_what_prefetching_changes_nothing_about(self, tiny_options):
        tiny_options["datasets"]["train"] |= {"prefetch_mode": "cuda", "pin_memory": True, "use_shuffle": True}
        assert check_options(tiny_options) == []
        tiny_options["datasets"]["train"]["use_shuffle"] = False
        (warning,) = check_options(tiny_options)
        assert_message(warning, "datasets.train.use_shuffle", "always shuffled")

    def test_nothing_to_validate(self, tiny_options):
        del tiny_options["datasets"]["val"]
        (warning,) = check_options(tiny_options)
        assert_message(warning, "val", "no data set `val`")

    def test_a_recorded_run_passes(self, tiny_options, workdir):
        from gramgan_plugin.config import resolve_options
        from gramgan_plugin.models.components import with_defaults

        (warning,) = check_options(with_defaults(resolve_options(tiny_options, is_train=True)))
        assert "computed for each run" in warning


class TestThirdParties:
    @pytest.fixture
    def register(self):
        added = []

        def add(registry, cls):
            registry.register(cls)
            added.append((registry, cls.__name__))

        yield add
        for registry, name in added:
            del registry._obj_map[name]

    def test_a_dataset_with_options(self, tiny_options, register):
        class DatasetForTest:
            Options = {"folder": "where images lie"}  # noqa: RUF012

        register(DATASET_REGISTRY, DatasetForTest)
        tiny_options["datasets"]["val"] = {"name": "x", "type": "DatasetForTest", "folder": "here"}
        assert check_options(tiny_options) == []
        tiny_options["datasets"]["val"]["foldr"] = "there"
        with pytest.raises(OptionError, match=r"^datasets\.val\.foldr: unknown option of DatasetForTest"):
            check_options(tiny_options)

    def test_a_dataset_without(self, tiny_options, register):
        class BareDatasetForTest:
            pass

        register(DATASET_REGISTRY, BareDatasetForTest)
        tiny_options["datasets"]["val"] = {"name": "x", "type": "BareDatasetForTest", "folder": 1, "b": 2}
        (warning,) = check_options(tiny_options)
        assert_message(warning, "datasets.val", "BareDatasetForTest", "not checked: folder, b")

    def test_a_model_with_options(self, tiny_options, register):
        class ModelForTest:
            Options = {"strength": "of it", "train.extra": "more of it"}  # noqa: RUF012

        register(MODEL_REGISTRY, ModelForTest)
        train = {"optim_g": {"type": "Adam", "lr": 1e-4}, "scheduler": {"type": "CosineRestartWarmupLR", "period": 9}}
        options = tiny_options | {"model_type": "ModelForTest", "strength": 3}
        options["train"] = train | {"total_iter": 4, "extra": 1}
        assert check_options(options) == []
        options["train"]["extr"] = 1
        with pytest.raises(OptionError, match=r"^train\.extr: .*did you mean 'extra'"):
            check_options(options)

    def test_a_model_without(self, tiny_options, register):
        class BareModelForTest:
            pass

        register(MODEL_REGISTRY, BareModelForTest)
        tiny_options |= {"model_type": "BareModelForTest", "strength": 3}
        tiny_options["train"]["more"] = 1
        warnings = check_options(tiny_options)
        assert_message(warnings, "options", "BareModelForTest", "not checked: strength")
        assert any(warning.startswith("train: ") and warning.endswith("more") for warning in warnings)


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class TestJsonSchema:
    @pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
    def test_shipped_files(self, validator, path):
        assert [error.message for error in validator.iter_errors(load_options([path]))] == []

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("train", "pixle_opt"), {"type": "L1Loss"}),
            (("train", "gram_patch_opt", "pach_size"), 4),
            (("val", "metrics", "psnr", "test_y_chanel"), True),
            (("datasets", "train", "gtsize"), 4),
            (("datasets", "vla"), {"name": "x", "type": "PairedSRDataset", "dataroot_gt": "x"}),
            (("scale",), "4"),
            (("model_type",), "GramGan"),
            (("network_g", "type"), "RRDBNett"),
            (("logger", "print_freq"), 0),
            (("network_c",), {"type": "RRDBNet"}),
        ],
    )
    def test_mistakes(self, validator, path, value):
        options = deepcopy(load_options(["train_gramgan_x4"]))
        section = options
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = value
        assert list(validator.iter_errors(options))

    def test_the_one_beside_the_shipped_files(self, tmp_path):
        """`basicsr schema > options/options.schema.json`; other versions of torch have other optimizers."""
        folder = Path(SHIPPED[0]).parent
        committed, fresh = json.loads((folder / "options.schema.json").read_text()), json_schema()
        jsonschema.Draft202012Validator.check_schema(committed)
        assert committed["properties"].keys() == fresh["properties"].keys()
        assert committed["properties"]["train"].keys() == fresh["properties"]["train"].keys()
        for path in SHIPPED:
            assert Path(path).read_text().startswith("# yaml-language-server: $schema=options.schema.json\n"), path
            jsonschema.Draft202012Validator(committed).validate(parse_yaml(Path(path).read_text(), path))

    def test_editors_get_descriptions(self):
        properties = json_schema()["properties"]
        assert all(value.get("description") for value in properties.values())
        assert properties["device"]["default"] == "auto"

    def test_as_a_command(self, capsys):
        assert main(["schema"]) == 0
        assert json.loads(capsys.readouterr().out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


class TestOptionsPage:
    def test_it_is_fresh(self):
        """If this fails: basicsr schema --markdown > docs/options.md"""
        page = Path(__file__).parents[2] / "docs" / "options.md"
        assert page.read_text(encoding="utf-8") == options_page()

    @pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
    def test_every_key_of_the_shipped_files_is_on_it(self, path):
        page = options_page()
        torchs = {"weight_decay", "betas", "lr", "max_lr", "total_steps", "pct_start", "type", "better"}
        for line in Path(path).read_text().splitlines():
            key, colon, value = line.partition("#")[0].partition(":")
            if colon and value.strip() and not key.strip().startswith("conv") and key.strip() not in torchs:
                assert re.search(rf"`(\w+\.)?{key.strip()}`", page), key

    def test_as_a_command(self, capsys):
        assert main(["schema", "--markdown"]) == 0
        assert capsys.readouterr().out == options_page()


class TestFlatFile:
    @pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
    def test_both_loaders_read_it_alike(self, path, workdir, capsys):
        force = ["--force_yml", "manual_seed=7", "scale=4", "path:param_key_g='1e3'"]
        assert main(["check", "-opt", path, "--no-files", "--resolve", "flat.yml", *force]) == 0
        merged = load_options([path], force[1:])
        assert load_options(["flat.yml"]) == merged
        with Path("flat.yml").open() as stream:
            theirs = yaml.load(stream, Loader=ordered_yaml()[0])
        assert json.dumps(theirs, sort_keys=True) == json.dumps(merged, sort_keys=True), "the same values and types"

    def test_several_files_become_one(self, tiny_options, write_options, workdir, capsys):
        (workdir / "more.yml").write_text("train: {optim_g: {lr: 3e-7}, total_iter: 5}\n")
        command = ["check", "-opt", write_options(tiny_options), "-opt", "more.yml", "--resolve", "flat.yml"]
        assert main(command) == 0
        train = yaml.safe_load((workdir / "flat.yml").read_text())["train"]
        assert (train["optim_g"]["lr"], train["total_iter"]) == (3e-7, 5)
        assert "patch_size" not in train["gram_patch_opt"], "defaults stay out"

    def test_not_written_from_wrong_options(self, tiny_options, write_options, workdir, capsys):
        command = ["check", "-opt", write_options(tiny_options), "--resolve", "flat.yml", "--force_yml", "scale=0"]
        assert main(command) == 2
        assert not (workdir / "flat.yml").exists()

    def test_cannot_be_written(self, tiny_options, write_options, capsys):
        assert main(["check", "-opt", write_options(tiny_options), "--resolve", "no/such/folder.yml"]) == 2
        assert "folder.yml: cannot be written" in capsys.readouterr().err

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=8,
            ),
        )
    )
    def test_any_value(self, options):
        text = flat_yaml(options)
        theirs = yaml.load(text, Loader=ordered_yaml()[0])
        assert parse_yaml(text, "t") == options
        assert json.dumps(theirs) == json.dumps(options)
