"""How long does a training wait for its images? Separate because a time is a measurement, not a truth.

    python -m benchmarks.loader --out benchmarks/results/loader-800.json
    python -m benchmarks.loader --data FOLDER --px 256 --workers 0 1 2 4 8

For each number of workers (machine.workers; 0: a batch is made when it is needed, as it was before there were any):
images per second of the loader alone, and the CPU time of an image; the share of a step that is waiting for the batch,
with a real network; and with a PAUSE of so many milliseconds instead of a network. A pause stands for a faster machine:
it uses no core and holds no lock, as the computing of a GPU does; what its Python costs is missing. Without --data the
images are drawn: JPEG files of COCO's usual size, shapes on noise. With --processes also torch's DataLoader, whose
workers are processes.

All numbers of workers take turns in one run, in an order that turns round every round, and all make the same batches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw
from torch.utils.data import DataLoader

from bench import spec
from bench.data.folder import image_root
from bench.data.loader import Loader, Workers
from bench.data.lvis import write_split
from bench.data.split import Category, FilePixels, Image, Split, open_split
from bench.detection.contract import Batch, Context, Draws, HeadSpec
from bench.engines.sections import TwoStage
from bench.engines.torchvision.build import build
from bench.engines.torchvision.facts import head_widths
from benchmarks.measured import write
from benchmarks.step import pyramid
from methods.parts.softmax import Softmax

WIDTH, HEIGHT, BOXES, CLASSES = 640, 480, 7, 80  # COCO's most common size, its mean of boxes and its classes
PRESET = Path(__file__).resolve().parent.parent / "suites" / "_presets" / "photo-cpu.yaml"
Network = Callable[[Batch, int], None]


class Shuffle:
    """Every image once per epoch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def epoch(self, e: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.permutation(self.number)


def drawn(folder: Path, number: int) -> Split:
    """JPEG files with coloured shapes on coarse and fine noise: about as many bytes as a photograph has."""
    rng = np.random.default_rng(0)
    boxes, labels = [], []
    for i in range(number):
        coarse = rng.integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8)
        ground = np.asarray(PILImage.fromarray(coarse).resize((WIDTH, HEIGHT)), np.int16)
        noisy = ground + rng.integers(-12, 13, ground.shape, dtype=np.int16)
        image = PILImage.fromarray(noisy.clip(0, 255).astype(np.uint8))
        corner = rng.uniform(0, (WIDTH * 0.7, HEIGHT * 0.7), (BOXES, 2))
        box = np.concatenate([corner, corner + rng.uniform(16, HEIGHT * 0.3, (BOXES, 2))], 1).astype(np.float32)
        pen = ImageDraw.Draw(image)
        for edges in box.tolist():
            pen.ellipse(edges, fill=tuple(rng.integers(0, 256, 3).tolist()))
        image.save(folder / f"{i}.jpg", quality=90)
        boxes.append(box)
        labels.append(rng.integers(0, CLASSES, BOXES))
    return Split(
        categories=tuple(Category(k + 1, f"c{k}", "f", 1, 1) for k in range(CLASSES)),
        images=tuple(Image(i, f"{i}.jpg", WIDTH, HEIGHT) for i in range(number)),
        boxes=boxes,
        labels=labels,
        ignore=[np.zeros(BOXES, np.bool_)] * number,
        annotated=[np.zeros((BOXES, 5))] * number,
        annotation_ids=[np.arange(BOXES)] * number,
        source=FilePixels(folder, tuple(f"{i}.jpg" for i in range(number))),
        rows=np.arange(number),
    )


def opened(data: Path, folder: Path) -> Split:
    """The training split of a folder in LVIS format."""
    section = spec.FolderData(name="lvis", path=str(data))
    write_split(section, "train", folder)
    return open_split(folder, image_root(section))


def loader_of(split: Split, section: spec.Input, batch: int, workers: int, device: str) -> Loader:
    made_by = Workers(workers, pinned=device == "cuda")
    return Loader(split, section, sampler=Shuffle(len(split)), batch=batch, seed=0, phase=0, workers=made_by)


@contextmanager
def processes(loader: Loader, steps: Sequence[int], workers: int) -> Iterator[Iterator[Batch]]:
    """The same batches from torch's DataLoader, made by processes (0: by this one)."""
    context = "fork" if workers else None  # what it does by default on Linux
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: that is the question
    yield iter(DataLoader(_Steps(loader, steps), batch_size=None, num_workers=workers, multiprocessing_context=context))


class _Steps(torch.utils.data.Dataset[Batch]):
    """Batches by their place in a row of steps."""

    def __init__(self, loader: Loader, steps: Sequence[int]) -> None:
        self.loader, self.steps = loader, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> Batch:
        return self.loader.batch(self.steps[place])


def network(split: Split, device: str) -> Network:
    """A full training step: on a GPU ResNet-50-FPN in bfloat16, on a CPU the detector of the preset photo-cpu."""
    cuda, C = device == "cuda", split.num_classes
    detector = pyramid("resnet50_fpn", "frozen", 2000, 512) if cuda else photo_cpu()
    counts = (1,) * C
    head = HeadSpec(C, *head_widths(detector), counts, counts, C, counts, counts)
    model = build(detector, head, Softmax(head), seed=0).to(device)
    model.to(memory_format=torch.channels_last)
    # A rate of nearly nothing: the weights are random, and must stay finite.
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-9, momentum=0.9)
    context = Context(0, 0.0, torch.Generator())

    def step(batch: Batch, number: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            out = model.train_forward(batch, Draws(0, 0, number), trunk_losses=True)
            own = model.classifier.loss(model.classifier(out.taps), out.targets, context)
        loss = torch.stack([value.float() for value in (*out.losses.values(), *own.values())]).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        loss.item()  # as a training does, which looks at its loss: waits for the GPU

    return step


def photo_cpu() -> TwoStage:
    section = yaml.safe_load(PRESET.read_text())["detector"]
    return TwoStage.model_validate({**section, "weights": None})


def pause(milliseconds: float) -> Network:
    """Instead of a network."""

    def step(batch: Batch, number: int) -> None:
        time.sleep(milliseconds / 1000)

    return step


def waits(batches: Iterator[Batch], warm: int, steps: int, device: str, step: Network) -> tuple[float, float, float]:
    """Of the steps after the first `warm`: seconds of waiting for batches, seconds in all, CPU seconds of this process
    with all its threads."""
    waiting = begun = used = 0.0
    for number in range(warm + steps):
        if number == warm:
            waiting, begun, used = 0.0, time.perf_counter(), time.process_time()
        asked = time.perf_counter()
        batch = next(batches).to(device)
        waiting += time.perf_counter() - asked
        step(batch, number)
    return waiting, time.perf_counter() - begun, time.process_time() - used


def compare(
    split: Split,
    section: spec.Input,
    *,
    batch: int,
    workers: Sequence[int],
    steps: int,
    network_steps: int,
    rounds: int,
    pauses: Sequence[float],
    device: str,
    with_processes: bool = False,
) -> list[dict[str, Any]]:
    """One entry for each way and number of workers; medians over rounds, and every value."""
    warm = 2 * max(workers) + 2  # the batches that are ready at first are used up
    cases: dict[str, tuple[Network, int]] = {"alone": (lambda batch, number: None, steps)}
    cases |= {f"pause {ms:g} ms": (pause(ms), steps) for ms in pauses}
    if network_steps:
        cases["network"] = (network(split, device), network_steps)
    turns = [("threads", n) for n in workers]
    turns += [("processes", n) for n in workers if n] if with_processes else []
    found: dict[tuple[str, int, str], list[tuple[float, float, float]]] = {}
    for number in range(rounds):
        for case, (step, count) in cases.items():
            before = min(warm, 2) if case == "network" else warm
            for how, n in turns if number % 2 else reversed(turns):
                if how == "processes" and case == "network":
                    continue  # a copy of a process that holds a network, and on a GPU a broken one
                loader = loader_of(split, section, batch, n, device)
                more = range(before + count + n + 1)  # the workers have something to do until the end
                made = loader.batches(more) if how == "threads" else processes(loader, more, n)
                with made as batches:
                    found.setdefault((how, n, case), []).append(waits(batches, before, count, device, step))
    return [_entry(how, n, batch, cases, found) for how, n in turns]


def _entry(
    how: str,
    n: int,
    batch: int,
    cases: dict[str, tuple[Network, int]],
    found: dict[tuple[str, int, str], list[tuple[float, float, float]]],
) -> dict[str, Any]:
    entry: dict[str, Any] = {"how": how, "workers": n}
    for case, (_, count) in cases.items():
        taken = found.get((how, n, case))
        if taken is None:
            continue
        if case == "alone":
            speeds = [batch * count / seconds for _, seconds, _ in taken]
            entry[case] = {"images_per_second": statistics.median(speeds), "rounds": speeds}
            if how == "threads":  # others' use of the machine changes it least
                entry[case]["cpu_ms_per_image"] = 1000 * min(used for *_, used in taken) / (batch * count)
        else:
            shares = [waiting / seconds for waiting, seconds, _ in taken]
            entry[case] = {
                "waiting": statistics.median(shares), "rounds": shares,
                "ms_per_step": 1000 * statistics.median(seconds / count for _, seconds, _ in taken),
            }  # fmt: skip
    print(f"{n} {how}:", ", ".join(_shown(entry)), flush=True)
    return entry


def _shown(entry: dict[str, Any]) -> list[str]:
    alone = entry["alone"]
    steps = {name: value for name, value in entry.items() if isinstance(value, dict) and "waiting" in value}
    cpu = [f"{alone['cpu_ms_per_image']:.1f} CPU ms an image"] if "cpu_ms_per_image" in alone else []
    return [f"{alone['images_per_second']:.1f} img/s", *cpu] + [
        f"{name}: waits {v['waiting']:.0%} of {v['ms_per_step']:.0f} ms" for name, v in steps.items()
    ]


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder in LVIS format; none: images are drawn")
    parser.add_argument("--px", type=int, default=800, help="short side; the long side is at most 5/3 of it")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--steps", type=int, default=12, help="measured steps, alone and with a pause")
    parser.add_argument("--network-steps", type=int, default=3, help="measured steps with a network; 0: none")
    parser.add_argument("--pauses", type=float, nargs="*", default=[80.0, 200.0], help="milliseconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", action="store_true", help="torch's DataLoader beside our threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--drawn", type=int, default=48, help="images to draw")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    return parser.parse_args(words)


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure; what was chosen, and the results."""
    torch.set_num_threads(1)
    device = chosen.device if chosen.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    section = spec.Input(min_size=chosen.px, max_size=chosen.px * 5 // 3)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        split = opened(chosen.data, Path(name)) if chosen.data else drawn(Path(name), chosen.drawn)
        results = compare(
            split, section, batch=chosen.batch, workers=chosen.workers, steps=chosen.steps,
            network_steps=chosen.network_steps, rounds=chosen.rounds, pauses=chosen.pauses, device=device,
            with_processes=chosen.processes,
        )  # fmt: skip
    images = chosen.data.name if chosen.data else f"{chosen.drawn} drawn, {WIDTH} x {HEIGHT}"
    return {
        "device": device, "images": images, "px": chosen.px, "batch": chosen.batch, "results": results,
        "load_average": {"before": before, "after": os.getloadavg()},
        "network": "resnet50_fpn, bfloat16" if device == "cuda" else "detector of the preset photo-cpu, one thread",
    }  # fmt: skip


def main() -> None:
    chosen = arguments_of()
    found = run(chosen)
    if chosen.out:
        words = [chosen.data.name if chosen.data and word == str(chosen.data) else word for word in sys.argv[1:]]
        write(chosen.out, "loader", words, found)


if __name__ == "__main__":
    main()
