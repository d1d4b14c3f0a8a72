from collections import OrderedDict

import basicsr  # noqa: F401
import pytest
import yaml
from basicsr.utils.options import ordered_yaml

from gramgan_plugin.config import parse_yaml
from gramgan_plugin.yaml_writer import yaml_text


class TestYamlText:
    @pytest.mark.parametrize(
        "text",
        [
            "1e4",
            "1e-4",
            ".5",
            "+1",
            "1_000",
            "0x10",
            "010",
            "1:30",
            "yes",
            "null",
            "~",
            "nan",
            ".nan",
            "2020-01-01",
            "",
        ],
    )
    def test_text_stays_text(self, text):
        written = yaml_text({"name": text, "more": [text]})
        for read in (parse_yaml(written, "t"), yaml.load(written, Loader=ordered_yaml()[0])):
            assert dict(read) == {"name": text, "more": [text]}

    @pytest.mark.parametrize("number", [1e-7, 1e22, 5e3, 0.1, -3, float("inf"), True, None])
    def test_numbers_stay_numbers(self, number):
        written = yaml_text({"lr": number})
        for read in (parse_yaml(written, "t"), yaml.load(written, Loader=ordered_yaml()[0])):
            assert read["lr"] == number
            assert type(read["lr"]) is type(number)

    def test_what_options_hold_besides(self):
        betas = [0.9, 0.99]
        written = yaml_text({"a": OrderedDict(betas=betas), "b": {"betas": betas}, "c": (1, 2), "d": "Zürich\x85"})
        assert parse_yaml(written, "t") == {
            "a": {"betas": betas},
            "b": {"betas": betas},
            "c": [1, 2],
            "d": "Zürich\x85",
        }
        assert "&" not in written, "no anchors"
