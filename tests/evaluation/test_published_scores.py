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


SETS = ("Set5", "Set14", "DIV2K", "Urban100", "Manga109")
# LPIPS / PSNR-Y / SSIM in the order of SETS.
PUBLISHED = {
    "ESRGAN": ".076/30.44/.852 .133/26.28/.699 .115/28.20/.777 .123/24.37/.734 .065/28.41/.859",
    "LDL": ".069/31.03/.861 .121/26.94/.721 .101/28.95/.795 .110/25.50/.767 .055/29.41/.875",
    "SeD": ".064/31.22/.867 .117/27.37/.736 .094/29.27/.802 .106/25.93/.779 .048/29.99/.888",
}
BICUBIC = {"Set5": "28.42/.8104", "Set14": "26.00/.7027", "BSD100": "25.96/.6675"}


def test_values():
    def printed(model, dataset):
        return "/".join(score.value.removeprefix("0") for score in published_scores(dataset)[model].values())

    for model, line in PUBLISHED.items():
        assert [printed(model, name) for name in SETS] == line.split()
    assert {name: printed("bicubic", name) for name in BICUBIC} == BICUBIC


def test_set_names():
    assert [*published_scores("SET5")] == ["ESRGAN", "LDL", "SeD", "bicubic"]
    assert published_scores("my photos") == {}
