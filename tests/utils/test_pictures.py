import numpy as np
import pytest
import skimage.data

from gramgan_plugin.utils.pictures import GAP, LABEL_HEIGHT, labelled, side_by_side


class TestSideBySide:
    def test_the_same_detailed_crop_of_each(self):
        gt = np.full((200, 300, 3), 128, np.uint8)
        gt[100:140, 220:260] = skimage.data.chelsea()[100:140, 100:140]
        dark = gt // 2
        picture = side_by_side({"dark": dark, "GT": gt}, crop=40, zoom=2)
        assert picture.shape == (LABEL_HEIGHT + 80, 80 + GAP + 80, 3)
        left, right = picture[LABEL_HEIGHT:, :80], picture[LABEL_HEIGHT:, 80 + GAP :]
        assert np.array_equal(left, right // 2)
        expected = gt[100:140, 220:260].astype(int)
        assert np.abs(right[::2, ::2].astype(int)[4:-4, 4:-4] - expected[4:-4, 4:-4]).mean() < 30
        assert (picture[:LABEL_HEIGHT, :80] < 128).any(), "a label"

    def test_small_images_are_shown_whole(self):
        image = skimage.data.chelsea()[:20, :30]
        assert side_by_side({"a": image}, crop=160, zoom=1).shape == (LABEL_HEIGHT + 20, 30, 3)

    def test_exception(self):
        with pytest.raises(ValueError, match="images of one size"):
            side_by_side({})
        with pytest.raises(ValueError, match="images of one size"):
            side_by_side({"a": np.zeros((4, 4, 3), np.uint8), "b": np.zeros((4, 5, 3), np.uint8)})


class TestLabelled:
    def test_rows(self):
        images = {str(i): np.full((10, 20, 3), 40 * i, np.uint8) for i in range(5)}
        picture = labelled(images, zoom=1, columns=3)
        assert picture.shape == (2 * (LABEL_HEIGHT + 10) + GAP, 3 * 20 + 2 * GAP, 3)
        middle = picture[LABEL_HEIGHT + 5 :: LABEL_HEIGHT + 10 + GAP, 10 :: 20 + GAP, 0]
        assert middle.tolist() == [[0, 40, 80], [120, 160, 255]]
        assert labelled(images, zoom=1).shape == (LABEL_HEIGHT + 10, 5 * 20 + 4 * GAP, 3)

    def test_exception(self):
        with pytest.raises(ValueError, match="images of one size"):
            labelled({})
