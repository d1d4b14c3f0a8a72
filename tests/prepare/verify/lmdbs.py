"""LMDBs for the tests of verify: real photos, cut and made smaller in many ways."""

from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from gramgan_plugin.functional.matlab_bicubic import lq_levels

Image = NDArray[np.uint8]
Smaller = Callable[[Image, int], Image]


def photos() -> list[Image]:
    """Textured, BGR; sides are multiples of 24."""
    names = ("chelsea", "coffee", "astronaut", "rocket", "immunohistochemistry")
    return [np.ascontiguousarray(getattr(skimage.data, name)()[:288, :384, ::-1]) for name in names]


def matlab(image: Image, scale: int) -> Image:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return lq_levels(pixels, scale)[0].permute(1, 2, 0).contiguous().numpy()


def cuts(size: int, scale: int, smaller: Smaller = matlab) -> dict[str, tuple[Image, Image]]:
    """GT and LQ sub-images by key; LQ is cut from the whole photo's."""
    found = {}
    for number, photo in enumerate(photos(), start=1):
        small = smaller(photo, scale)
        places = [(y, x) for y in (0, 96) for x in (24, 120, 192) if y + size <= 288 and x + size <= 384]
        for count, (y, x) in enumerate(places, start=1):
            below = small[y // scale : (y + size) // scale, x // scale : (x + size) // scale]
            found[f"{number:06d}_s{count:03d}"] = (photo[y : y + size, x : x + size], below)
    return found


def png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def write(path: Path, images: dict[str, Image | bytes], lines: list[str] | None = None) -> Path:
    """An LMDB without a manifest, as upstream writes it."""
    path.mkdir(parents=True)
    environment = lmdb.open(str(path), map_size=2**28)
    data = {key: image if isinstance(image, bytes) else png(image) for key, image in images.items()}
    with environment.begin(write=True) as transaction:
        for key, value in data.items():
            transaction.put(key.encode(), value)
    environment.close()
    if lines is None:
        lines = []
        for key in images:
            pixels = cv2.imdecode(np.frombuffer(data[key], np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            channels = 1 if pixels.ndim == 2 else pixels.shape[2]
            lines.append(f"{key}.png ({pixels.shape[0]},{pixels.shape[1]},{channels}) 1")
    (path / "meta_info.txt").write_text("".join(line + "\n" for line in lines))
    return path


def put(path: Path, key: str, data: bytes | None) -> None:
    """Replace or delete an image of an LMDB."""
    environment = lmdb.open(str(path), map_size=2**28, lock=False)
    with environment.begin(write=True) as transaction:
        if data is None:
            transaction.delete(key.encode())
        else:
            transaction.put(key.encode(), data)
    environment.close()


def write_set(out: Path, pairs: dict[str, tuple[Image, Image]], scale: int) -> Path:
    """A folder like a prepared one."""
    write(out / "GT.lmdb", {key: gt for key, (gt, _) in pairs.items()})
    write(out / f"LQ_x{scale}.lmdb", {key: lq for key, (_, lq) in pairs.items()})
    return out
