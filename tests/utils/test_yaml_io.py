import math
from collections import OrderedDict

import basicsr  # noqa: F401
import pytest
import yaml
from basicsr.utils.options import ordered_yaml
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.yaml_io import parse_yaml, yaml_text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# PyYAML writes the text "1e4" without quotes, since YAML 1.1 has no such number.
TEXT = st.text().filter(lambda text: not _is_number(text))


class TestValues:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-4", 1e-4),
            ("1E4", 1e4),
            ("-2.5e+3", -2500.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("!!float 1e-4", 1e-4),
            ("!!float 5", 5.0),
            ("3", 3),
            ("-3", -3),
            ("true", True),
            ("~", None),
            ("e4", "e4"),
            ("1e", "1e"),
            ("v1.2.3", "v1.2.3"),
            ("[1, 2.0, a]", [1, 2.0, "a"]),
        ],
    )
    def test_feature(self, text, value):
        got = parse_yaml(f"key: {text}", "t")["key"]
        assert got == value
        assert type(got) is type(value)

    def test_infinity(self):
        assert parse_yaml("[.inf, -.inf]", "t") == [math.inf, -math.inf]

    @given(st.floats(allow_nan=False))
    def test_any_float_as_python_writes_it(self, number):
        got = parse_yaml(f"key: {number!r}".replace("inf", ".inf"), "t")["key"]
        assert got == number
        assert isinstance(got, float)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
            max_leaves=8,
        )
    )
    def test_reads_what_pyyaml_writes(self, value):
        assert parse_yaml(yaml.safe_dump(value), "t") == value

    def test_merge_keys_work_and_may_be_overridden(self):
        assert parse_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n", "t")["b"] == {"x": 1, "y": 3}

    def test_what_an_anchor_names_is_nobody_elses(self):
        value = parse_yaml("g: &adam {type: Adam, betas: [0.9, 0.99]}\nd: *adam\n", "t")
        value["g"].pop("type")
        value["g"]["betas"].append(1)
        assert value["d"] == {"type": "Adam", "betas": [0.9, 0.99]}

    def test_anchors_that_grow_without_end(self):
        lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        with pytest.raises(OptionError, match=r"^t: .*anchors .* 100,000 values"):
            parse_yaml("\n".join(lines), "t")

    @pytest.mark.parametrize("levels", [1, 3])
    def test_merges_that_grow_without_end(self, levels):
        lines = ["a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}"]
        lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 1000)}]}}" for n in range(1, levels + 1)]
        with pytest.raises(OptionError, match=r"^t, line \d: merges more than 100,000 values$"):
            parse_yaml("\n".join(lines), "t")

    def test_an_anchor_within_itself(self):
        with pytest.raises(OptionError, match="t: not readable as YAML"):
            parse_yaml("a: &a [*a]\n", "t")


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: 1\nb: 2\na: 3\n", "opt.yml, line 3: the key 'a' appears twice"),
            ("a:\n  b: 1\n  b: 2\n", "line 3: the key 'b' appears twice"),
            ("a: !!python/object/apply:os.system ['touch pwned']\n", "line 1: could not determine a constructor"),
            ("a: !mine 3\n", "line 1: could not determine a constructor"),
            ("a: [1\n", "line 2"),
            ("a: \x07\n", "opt.yml"),
            ("[1, 2]: 3\n", "plain value"),
            ("&a [*a]: 3\n", "opt.yml"),
            ("a: 1\nb: !!int ''\n", "opt.yml, line 2: '' is not of the type int"),
            ("a: !!float ''\n", "line 1: '' is not of the type float"),
            ("a: !!bool maybe\n", "line 1: 'maybe' is not of the type bool"),
            ("a: !!timestamp x\n", "line 1: 'x' is not of the type timestamp"),
            ("a: 2001-13-45\n", "line 1: '2001-13-45' is not of the type timestamp"),
            ("a: !!float 1:1:x\n", "line 1: '1:1:x' is not of the type float"),
            ("a: 0x" + "f" * 100_000, "line 1: a number that is too long"),
            ("a: " + "1:" * 5000 + "1", "line 1: a number that is too long"),
            ("a: !!float " + "1:" * 5000 + "1", "line 1: a number that is too long"),
            ("a: " + "9" * 5000, "line 1: a number that is too long"),
            ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
            ("[" * 2000, "nested too deeply"),
            ("".join(f"k{n}: 1\n" for n in range(6000)), "line 5000: more than 10,000 keys and values"),
            ("a: " + "x" * 2**20, "opt.yml: longer than 1 MB"),
        ],
        ids=lambda text: text[:20],
    )
    def test_one_line_that_names_the_place(self, text, message, workdir):
        with pytest.raises(OptionError, match=r"^opt\.yml[,:] [^\n]+$") as caught:
            parse_yaml(text, "opt.yml")
        assert message in str(caught.value)
        assert len(str(caught.value)) < 300
        assert not (workdir / "pwned").exists()


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
