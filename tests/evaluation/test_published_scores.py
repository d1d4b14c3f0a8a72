from gramgan_plugin.evaluation.published_scores import HEADINGS, all_published_scores, published_scores


def test_rows():
    rows = all_published_scores()
    assert len(rows) == 3 * 5 * 3 + 3 * 2
    assert len({(row.model, row.set, row.metric) for row in rows}) == len(rows)
    assert {row.metric for row in rows} == {*HEADINGS}
    for row in rows:
        low, high = (20, 35) if row.metric == "psnr_y" else (0, 1)
        assert low < float(row.value) < high
        assert "not remeasured" in row.source
        assert row.protocol.startswith("x4")
    assert not [row for row in rows if "gram" in row.model.lower()]


def test_values():
    def line(model, dataset):
        return [score.value for score in published_scores(dataset)[model].values()]

    assert line("ESRGAN", "DIV2K") == ["0.115", "28.20", "0.777"]
    assert line("LDL", "Urban100") == ["0.110", "25.50", "0.767"]
    assert line("SeD", "Manga109") == ["0.048", "29.99", "0.888"]
    assert line("bicubic", "BSD100") == ["25.96", "0.6675"]


def test_set_names():
    assert [*published_scores("SET5")] == ["ESRGAN", "LDL", "SeD", "bicubic"]
    assert published_scores("my photos") == {}


def test_better_models_are_better():
    """The order of the three models is the same in all sets, so a wrong digit would show."""
    for name in ("Set5", "Set14", "DIV2K", "Urban100", "Manga109"):
        scores = published_scores(name)
        for metric, sign in (("lpips", -1), ("psnr_y", 1), ("ssim", 1)):
            values = [sign * float(scores[model][metric].value) for model in ("ESRGAN", "LDL", "SeD")]
            assert values == sorted(values), (name, metric)
