"""How other views of an image are made (bench.data.views.View). Separate from the suite's own augmentation, which every
image of a training gets: views are what a method compares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from bench.data.views import Bytes, Window
from bench.errors import UserError

_SIDE = 224  # pixels that the published widths of the blur belong to


class View:
    """A window of the image, resized to the whole frame; then colours, gray, blur, solarisation.

    Flip and the order of the channels are the suite's (`input`), since they may make another class of an object.

    Source: He et al. (MoCo, v2: Chen et al. 2020) and Grill et al. 2020 (BYOL), appendix B, whose `blur` and `solarise`
    are 1 and 0 in one view, 0.1 and 0.2 in the other. DEVIATION: colours change in one fixed order; the blur is scaled
    to the image (published for 224 px).

    Args:
        area: least and largest share of the image in the window.
        ratio: least and largest width / height of the window, beside the image's own.
        colour: (brightness, contrast, saturation, hue): at most so far from 1 (hue: from 0).
        colour_share, gray, blur, solarise: probabilities.
        sigma: least and largest width of the blur at 224 px.
        visible: see bench.data.views.View.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self,
        *,
        area: Sequence[float] = (0.3, 1.0),
        ratio: Sequence[float] = (0.75, 1.33),
        colour: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
        colour_share: float = 0.8,
        gray: float = 0.2,
        blur: float = 0.5,
        sigma: Sequence[float] = (0.1, 2.0),
        solarise: float = 0.0,
        visible: float = 0.5,
    ) -> None:
        ranges = {"area": (area, 1.0), "ratio": (ratio, math.inf), "sigma": (sigma, math.inf)}
        for name, (pair, most) in ranges.items():
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
                raise UserError(f"{name} is {list(pair)}", where="View", allowed=f"two rising numbers, 0 to {most:g}")
        if len(colour) != 4 or not all(0 <= x <= 1 for x in colour) or colour[3] > 0.5:
            raise UserError(f"colour is {list(colour)}", where="View", allowed="four numbers 0 to 1, the last to 0.5")
        for name, share in {
            "colour_share": colour_share, "gray": gray, "blur": blur, "solarise": solarise, "visible": visible,
        }.items():  # fmt: skip
            if not 0 <= share <= 1:
                raise UserError(f"{name} is {share}", where="View", allowed="0 to 1")
        self.area, self.ratio, self.colour, self.sigma = tuple(area), tuple(ratio), tuple(colour), tuple(sigma)
        self.colour_share, self.gray, self.blur, self.solarise = colour_share, gray, blur, solarise
        self.visible = visible

    def __call__(self, pixels: Bytes, size: tuple[int, int], rng: np.random.Generator) -> tuple[Bytes, Window]:
        u = rng.random(13).tolist()  # all drawn, whatever is on: a probability of one changes nothing of the others
        window = self._window(pixels.shape[0], pixels.shape[1], u[:4])
        image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=window)
        if u[4] < self.colour_share:
            brightness, contrast, saturation = (
                1 + (2 * x - 1) * most for x, most in zip(u[5:8], self.colour, strict=False)
            )
            image = ImageEnhance.Brightness(image).enhance(brightness)
            image = ImageEnhance.Contrast(image).enhance(contrast)
            image = ImageEnhance.Color(image).enhance(saturation)
            image = _turned(image, (2 * u[8] - 1) * self.colour[3])
        if u[9] < self.gray:
            image = ImageOps.grayscale(image).convert("RGB")
        if u[10] < self.blur:
            width = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u[11]
            image = image.filter(ImageFilter.GaussianBlur(width * min(size) / _SIDE))
        if u[12] < self.solarise:
            image = ImageOps.solarize(image)
        return np.asarray(image), window

    def _window(self, height: int, width: int, u: Sequence[float]) -> Window:
        area = (self.area[0] + (self.area[1] - self.area[0]) * u[0]) * height * width
        low, high = (math.log(r) for r in self.ratio)
        ratio = math.exp(low + (high - low) * u[1]) * width / height
        w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        x, y = u[2] * (width - w), u[3] * (height - h)
        return x, y, x + w, y + h


def _turned(image: Image.Image, hue: float) -> Image.Image:
    """With every hue turned by a share of the circle; in steps of 1/256, as Pillow has hues."""
    h, s, v = image.convert("HSV").split()
    turned = (np.asarray(h).astype(np.int64) + round(hue * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), s, v)).convert("RGB")
