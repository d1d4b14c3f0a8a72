from dataclasses import replace

import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.collect.criteria import Criteria, Measured, judge, judge_alone

GOOD = Measured("a" * 64, 1000, 800, 600, "JPEG", 0.8, 1.0, 0.1, 92, 0)


class TestJudgeAlone:
    @pytest.mark.parametrize(
        ("change", "reason", "detail", "off"),
        [
            ({"height": 479}, "small", "800x479, shorter side below 480", "min_side"),
            ({"sharpness": 0.3}, "blurred", "sharpness 0.30, below 0.45", "min_sharpness"),
            ({"spectral_drop": 2.0}, "upscaled", "spectral drop 2.00, above 1.6", "max_spectral_drop"),
            ({"jpeg_quality": 60}, "compressed", "JPEG quality 60, below 75", "min_jpeg_quality"),
            ({"blockiness": 1.2}, "compressed", "blockiness 1.20, above 0.85", "max_blockiness"),
        ],
    )
    def test_feature_each_limit(self, change: dict[str, float], reason: str, detail: str, off: str) -> None:
        spoilt = replace(GOOD, **change)
        verdict = judge_alone(spoilt, Criteria())
        assert (verdict.reason, verdict.detail) == (reason, detail)
        assert judge_alone(spoilt, replace(Criteria(), **{off: None})).reason is None
        assert judge_alone(GOOD, Criteria()).reason is None

    def test_feature_no_jpeg_has_no_quality(self) -> None:
        assert judge_alone(replace(GOOD, jpeg_quality=None), Criteria()).reason is None

    def test_feature_unreadable(self) -> None:
        assert judge_alone(replace(GOOD, unreadable="cut short"), Criteria()).detail == "cut short"


class TestJudge:
    def test_feature_largest_of_near_ones(self) -> None:
        photos = [
            replace(GOOD, sha256="1", hash64=0b111, width=700),
            replace(GOOD, sha256="2", hash64=0b001),
            replace(GOOD, sha256="3", hash64=2**64 - 1),
        ]
        verdicts = judge(["small", "large", "other"], photos, Criteria())
        assert [verdict.reason for verdict in verdicts] == ["similar", None, None]
        assert verdicts[0].detail == "like large, 2 of 64 bits differ"
        assert verdicts[0].twin == 1

    def test_feature_less_compressed_then_first(self) -> None:
        photos = [replace(GOOD, sha256=str(k), jpeg_quality=q) for k, q in enumerate((80, None, 95, None))]
        reasons = [verdict.reason for verdict in judge(list("abcd"), photos, Criteria())]
        assert reasons == ["similar", None, "similar", "similar"]

    def test_feature_equal_files_even_without_hashes(self) -> None:
        verdicts = judge(["a", "b"], [GOOD, GOOD], Criteria(hash_distance=None))
        assert (verdicts[1].reason, verdicts[1].detail) == ("duplicate", "the same file as a")

    def test_feature_dropped_ones_displace_none(self) -> None:
        enlarged = replace(GOOD, sha256="2", width=1600, height=1200, spectral_drop=2.5)
        assert [v.reason for v in judge(["a", "b"], [GOOD, enlarged], Criteria())] == [None, "upscaled"]


class TestCriteria:
    @pytest.mark.parametrize("wrong", [{"min_side": 0}, {"min_sharpness": 2}, {"hash_distance": 17}])
    def test_exception(self, wrong: dict[str, float]) -> None:
        option = "--" + next(iter(wrong)).replace("_", "-")
        with pytest.raises(UserError, match=f"{option} .*: must be from"):
            Criteria(**wrong).check()  # type: ignore[arg-type]
