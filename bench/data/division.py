"""Training images divided into `tune`, on which a search measures, and `rest`, on which it trains. Separate because
neither reads nor makes an image: it needs the classes of each image and nothing else.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011):
the images of the rarest class first, each to the side that lacks the class most. What it leaves on one side only is
mended afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.seeds import generator

VERSION = 1  # in the key of the stages of a division; raise it when an image may change sides

Ints = NDArray[np.int64]

_REST, _TUNE = 0, 1
_EXCHANGES = 200  # at most; LVIS's size takes about 100 (2 s of CPU in all), after which each class is within an image
_GAIN = 1e-9  # an exchange that brings less is rounding
_TRIES = 2000  # moves that are tried to bring one class into `tune`; in 2,000 random sets none needed 100


@dataclass(frozen=True, eq=False)
class Division:
    """Two sides of a list of images.

    Attributes:
        rest, tune: positions of the images, int64 ascending; each image is on one side.
        unsplit: classes with images, none of them in `tune`: those of a single image, and those that could not be
            split (see `divide`). All their images are in `rest`.
    """

    rest: Ints
    tune: Ints
    unsplit: tuple[int, ...]


def divide(image_classes: Sequence[Sequence[int]], num_classes: int, fraction: float, seed: int) -> Division:
    """Divide images so that each class has about `fraction` of its images in `tune`.

    A class with an image has one in `rest`, always: it must be trained. A class with two images or more has one in
    `tune` as well. Several classes can exclude that: of two images that show two classes alone and a third together,
    both must be trained; and of three classes of two images each, in a triangle, one cannot be split. Such classes are
    mended by exchanging images along chains; those that remain are in `unsplit`.

    `tune` has round(fraction * images) images. It has more where rare classes need them (one of two images is a half),
    and fewer where no further image can be spared; the shares of the classes are kept as well as that allows.

    Args:
        image_classes: the classes (0..C-1) that each image shows; an image may show none.
        num_classes: C.
        fraction: of the images that are to be in `tune`.
        seed: of the division.

    Raises:
        UserError: a fraction outside 0..1, or one side would have no image.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"the fraction to tune on is {fraction}", allowed="a number between 0 and 1, e.g. 0.2")
    if len(image_classes) < 2:
        raise UserError(f"{len(image_classes)} images cannot be divided into two sides")
    order = generator(seed, "division/order").permutation(len(image_classes))
    shown = [tuple(sorted(set(image_classes[i]))) for i in order.tolist()]
    sides = _Sides(shown, num_classes, fraction)
    _stratify(sides, generator(seed, "division/ties"))
    _keep_in_rest(sides)
    _bring_into_tune(sides)
    _to_size(sides)
    while _bring_into_tune(sides):  # what was moved may have made room for a class
        _to_size(sides)
    side = np.zeros(len(order), np.int64)
    side[order] = sides.of
    tune, rest = np.flatnonzero(side == _TUNE), np.flatnonzero(side == _REST)
    if not len(tune) or not len(rest):
        name, other = ("tune", "rest") if not len(tune) else ("rest", "tune")
        raise UserError(
            f"{len(order)} images cannot be divided: all would be in `{other}`, none in `{name}`",
            hint=f"another fraction than {fraction:g}, or more images",
        )  # fmt: skip
    unsplit = tuple(c for c, images in enumerate(sides.images) if images and not sides.count[_TUNE][c])
    return Division(rest, tune, unsplit)


class _Sides:
    """Which side each image is on, in the order of the draw, and how many images of each class a side has."""

    def __init__(self, shown: Sequence[tuple[int, ...]], num_classes: int, fraction: float) -> None:
        self.shown = shown
        self.fraction = fraction
        self.images: list[list[int]] = [[] for _ in range(num_classes)]
        for image, classes in enumerate(shown):
            for c in classes:
                self.images[c].append(image)
        self.of = [_REST] * len(shown)
        self.count = [[len(images) for images in self.images], [0] * num_classes]
        self.in_tune = 0
        self.target = round(fraction * len(shown))

    def move(self, image: int) -> None:
        """To the other side."""
        old = self.of[image]
        new = self.of[image] = 1 - old
        self.in_tune += new - old
        for c in self.shown[image]:
            self.count[old][c] -= 1
            self.count[new][c] += 1


def _stratify(sides: _Sides, rng: np.random.Generator) -> None:
    """Iterative stratification over two sides. Images without a class go where images lack, at last (`_to_size`).

    Wanted of a class is one image on each side at least, where it has two; the paper wants the share alone.
    """
    numbers = [len(images) for images in sides.images]
    tuned = [min(max(sides.fraction * n, 1.0), n - 1.0) if n > 1 else 0.0 for n in numbers]
    wanted = [[n - t for n, t in zip(numbers, tuned, strict=True)], tuned]
    total = [float(len(sides.shown) - sides.target), float(sides.target)]
    coin = (rng.random(len(sides.shown)) < sides.fraction).tolist()
    placed = [False] * len(sides.shown)
    left = np.array(numbers, np.int64)
    never = len(sides.shown) + 1
    for _ in numbers:
        rarest = int(np.argmin(np.where(left > 0, left, never)))
        for image in sides.images[rarest]:
            if placed[image]:
                continue
            placed[image] = True
            lack = (wanted[_TUNE][rarest] - wanted[_REST][rarest]) or (total[_TUNE] - total[_REST])
            side = int(lack > 0) if lack else int(coin[image])
            if side == _TUNE:
                sides.move(image)
            total[side] -= 1.0
            for c in sides.shown[image]:
                wanted[side][c] -= 1.0
                left[c] -= 1


def _keep_in_rest(sides: _Sides) -> None:
    """One image of each class goes back to `rest` where all are in `tune`: the one that other classes need least."""
    rest, tune = sides.count[_REST], sides.count[_TUNE]
    for c, images in enumerate(sides.images):
        if images and not rest[c]:
            sides.move(
                min(images, key=lambda image: sum(tune[d] == 1 < len(sides.images[d]) for d in sides.shown[image]))
            )


def _bring_into_tune(sides: _Sides) -> bool:
    """An image of each class with two or more, rarest first, where that takes none of another class that it needs.

    Returns:
        Whether there was such a class. None that is split already is lost.
    """
    found = False
    for c in sorted(range(len(sides.images)), key=lambda c: len(sides.images[c])):
        if len(sides.images[c]) > 1 and not sides.count[_TUNE][c]:
            chain = _Chain(sides)
            found |= any(chain.move(image) for image in chain.fewest(sides.images[c]))
    return found


class _Chain:
    """Moves that belong together: one, and those that give other classes back what it takes from them."""

    def __init__(self, sides: _Sides) -> None:
        self._sides = sides
        self._moved: list[int] = []  # in this order
        self._tries = 0

    def fewest(self, images: Sequence[int]) -> list[int]:
        """Images that show few classes first."""
        return sorted(images, key=lambda image: len(self._sides.shown[image]))

    def move(self, image: int) -> bool:
        """Whether the image could be moved; if not, nothing has been."""
        self._tries += 1
        if self._tries > _TRIES or len(self._moved) > 200:
            return False
        sides, start, old = self._sides, len(self._moved), self._sides.of[image]
        sides.move(image)
        self._moved.append(image)
        for c in sides.shown[image]:
            # All images of the class are on the new side now: another one has to come back.
            if not sides.count[old][c] and not any(self.move(other) for other in self._others(c)):
                for one in reversed(self._moved[start:]):
                    sides.move(one)
                del self._moved[start:]
                return False
        return True

    def _others(self, c: int) -> list[int]:
        return self.fewest([image for image in self._sides.images[c] if image not in self._moved])


class _Costs:
    """What the shares of the classes lose by a move: the measure is the sum over classes of
    (tune images - fraction * images)^2 / images. No class loses its last image on a side; what has no class is free.
    """

    def __init__(self, sides: _Sides) -> None:
        self._sides = sides
        self._lengths = np.array([len(classes) for classes in sides.shown], np.int64)
        self._flat = np.array([c for classes in sides.shown for c in classes], np.int64)
        self._owner = np.repeat(np.arange(len(self._lengths)), self._lengths)
        self._numbers = np.maximum(1, np.array([len(images) for images in sides.images], np.int64))
        self._of = np.array(sides.of, np.int64)

    def move(self, image: int) -> None:
        """To the other side."""
        self._sides.move(image)
        self._of[image] = self._sides.of[image]

    def best_from(self, old: int) -> tuple[int, float]:
        """The image whose move from a side costs least, and its cost: infinite where none can be spared."""
        sides, sign = self._sides, 1.0 if old == _REST else -1.0
        off = np.array(sides.count[_TUNE]) - sides.fraction * self._numbers
        last = np.array(sides.count[old]) <= 1
        each = np.where(last, np.inf, (1.0 + 2.0 * sign * off) / self._numbers)
        sums = np.bincount(self._owner, weights=each[self._flat], minlength=len(self._lengths))
        costs = sums.astype(np.float64)  # of no pair at all they are integers
        costs[self._of != old] = np.inf
        best = int(np.argmin(costs))
        return best, float(costs[best])


def _to_size(sides: _Sides) -> None:
    """Move images until `tune` has the number that it should have, those first that cost least; then exchange pairs of
    images while that brings the shares of the classes nearer.
    """
    costs = _Costs(sides)
    _resize(sides, costs)
    while _exchange(costs) and sides.in_tune != sides.target:  # an exchange may have made room
        _resize(sides, costs)


def _resize(sides: _Sides, costs: _Costs) -> None:
    while sides.in_tune != sides.target:
        best, cost = costs.best_from(_TUNE if sides.in_tune > sides.target else _REST)
        if np.isinf(cost):
            return  # each image left is one that a class needs where it is
        costs.move(best)


def _exchange(costs: _Costs) -> bool:
    """Whether images were exchanged."""
    for done in range(_EXCHANGES):
        first, cost = costs.best_from(_TUNE)
        if np.isinf(cost):
            return done > 0
        costs.move(first)
        second, back = costs.best_from(_REST)
        better = cost + back < -_GAIN
        costs.move(second if better else first)
        if not better:
            return done > 0
    return True
