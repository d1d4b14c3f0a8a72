import struct

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.encode import Encoding

PHOTO = np.ascontiguousarray(skimage.data.coffee()[100:292, 200:392, ::-1])


class TestEncoding:
    @pytest.mark.parametrize("encoding", [Encoding(), Encoding("fast"), Encoding(level=0), Encoding(level=9)])
    def test_feature_loses_nothing(self, encoding: Encoding) -> None:
        data = encoding.encode(PHOTO)
        assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), PHOTO)

    def test_feature_not_contiguous(self) -> None:
        assert Encoding("fast").encode(PHOTO[:, 10:58]) == Encoding("fast").encode(PHOTO[:, 10:58].copy())

    def test_feature_fast_is_bmp_of_24_bits(self) -> None:
        data = Encoding("fast").encode(PHOTO)
        assert data[:2] == b"BM"
        assert struct.unpack_from("<H", data, 28) == (24,)
        assert PHOTO.nbytes < len(data) < PHOTO.nbytes + 100

    def test_feature_default_is_hardly_larger_than_basicsrs(self) -> None:
        theirs = cv2.imencode(".png", PHOTO, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        assert len(Encoding().encode(PHOTO)) < 1.1 * theirs.nbytes

    def test_feature_all_filters_is_opencvs_own(self) -> None:
        theirs = cv2.imencode(".png", PHOTO, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
        assert Encoding(level=3, all_filters=True).encode(PHOTO) == theirs

    def test_feature_level(self) -> None:
        sizes = [len(Encoding(level=level).encode(PHOTO)) for level in (0, 1, 9)]
        assert sizes == sorted(sizes, reverse=True)
        assert [Encoding(level=level).level_in_meta_info for level in (None, 0, 9)] == [1, 0, 9]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("jpeg",), "encoding 'jpeg': .* png, fast"),
            (("png", 10), "compression level 10: .* 0 to 9"),
            (("png", -1), "compression level -1"),
            (("fast", 3), "'fast' is not compressed"),
        ],
    )
    def test_exception(self, arguments: tuple[object, ...], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Encoding(*arguments)
