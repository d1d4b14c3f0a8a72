import numpy as np
import skimage.data

from gramgan_plugin.inference.transparency import fill_transparent, on_white

PHOTO = skimage.data.astronaut()[100:124, 200:232]


def test_hidden_colours_become_those_of_the_nearest_visible_pixel() -> None:
    alpha = np.zeros((24, 32), np.uint8)
    alpha[4:9, 5:12], alpha[20, 30] = 200, 1
    filled = fill_transparent(PHOTO, alpha)
    visible = np.argwhere(alpha > 0)
    for y, x in np.ndindex(alpha.shape):
        distances = ((visible - (y, x)) ** 2).sum(axis=1)
        nearest = visible[distances == distances.min()]  # there may be several
        assert any(np.array_equal(filled[y, x], PHOTO[tuple(place)]) for place in nearest)


def test_nothing_to_fill() -> None:
    for level in (0, 1, 255):
        assert fill_transparent(PHOTO, np.full((24, 32), level, np.uint8)) is PHOTO


def test_sixteen_bits_and_gray_are_filled() -> None:
    gray = PHOTO[..., :1].astype(np.uint16) * 257
    alpha = np.full((24, 32), 65535, np.uint16)
    alpha[3, 3] = 0
    filled = fill_transparent(gray, alpha)
    assert filled.dtype == np.uint16
    assert filled[3, 3] in (gray[2, 3], gray[4, 3], gray[3, 2], gray[3, 4])


def test_on_white_is_the_rounded_mixture() -> None:
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535)):
        pixels = (PHOTO.astype(np.uint32) * (most // 255)).astype(dtype)
        alpha = np.linspace(0, most, 24 * 32).round().astype(dtype).reshape(24, 32)
        opacity = alpha[..., None] / most
        expected = pixels * opacity + most * (1 - opacity)
        mixed = on_white(pixels, alpha)
        assert mixed.dtype == dtype
        assert np.abs(mixed - expected).max() <= 0.5 + 1e-6
