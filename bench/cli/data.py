"""`data check`, `data convert` and `data fill-negatives`: look at data before it costs GPU time."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from bench.data.formats import FORMATS
from bench.errors import UserError

_EXAMPLES = 5
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check_command(
    path: Annotated[Path, typer.Argument(help="Folder of LVIS- or COCO-format data.", show_default=False)],
    train: Annotated[str, typer.Option(help="Training annotations, below PATH.")] = "annotations/train.json",
    val: Annotated[str, typer.Option(help="Validation annotations, below PATH.")] = "annotations/val.json",
    images: Annotated[str, typer.Option(help="Folder of the images, below PATH.")] = "images",
    val_images: Annotated[str, typer.Option(help="Folder of val's images, if it is another one.")] = "",
    form: Annotated[str, typer.Option("--format", help="Format of the annotations, e.g. coco.")] = "lvis",
    exif: Annotated[
        str, typer.Option(help="As data.exif of a suite: ignore, or apply the images' orientation.")
    ] = "ignore",
    decode: Annotated[bool, typer.Option(help="Decode every image.")] = True,
    every: Annotated[bool, typer.Option("--all", help="List all entries of a kind, not the first five.")] = False,
) -> None:
    """Find what would hurt later: missing images, unknown ids, bad boxes, no negative lists, untrained classes."""
    folders: Any = {"train": images, "val": val_images} if val_images else images
    code = check(path, train, val, folders, form, Console(), exif=exif, decode=decode, every=every)
    raise typer.Exit(code)


def fill_command(
    source: Annotated[Path, typer.Argument(help="Annotation file whose annotation is exhaustive.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
) -> None:
    """Write a copy in which every class absent from an image is a negative, so that its false positives count."""
    from bench.data.check import fill_negatives

    filled: Any = fill_negatives(source, target)
    Console().print(f"wrote {target}" + (f" ({filled} images filled)" if isinstance(filled, int) else ""))


def convert_command(
    source: Annotated[Path, typer.Argument(help="Folder as a tool exported it.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Folder to write; it must not be there.", show_default=False)],
    form: Annotated[
        str, typer.Option("--format", help="auto, coco, lvis, labelstudio, yolo, voc, cvat or datumaro.")
    ] = "auto",
    train: Annotated[str, typer.Option(help="Training annotations, below SOURCE, where they are not found.")] = "",
    val: Annotated[str, typer.Option(help="Validation annotations, below SOURCE.")] = "",
    images: Annotated[str, typer.Option(help="What is done with images: none, link or copy.")] = "none",
    exif: Annotated[str, typer.Option(help="apply: boxes were drawn on images as viewers turn them.")] = "ignore",
    val_share: Annotated[float, typer.Option(help="Share of the images that becomes val, where there is none.")] = 0.0,
) -> None:
    """Write a mended copy of COCO, LVIS, YOLO, VOC, CVAT or Datumaro data, as a folder that is read without a note."""
    from bench.data.exported.convert import convert

    for name, value, legal in (("--images", images, ("none", "link", "copy")), ("--exif", exif, ("ignore", "apply"))):
        if value not in legal:
            raise UserError(f"'{value}' is not possible", where=name, allowed=", ".join(legal))
    done = convert(
        source,
        target,
        form,
        train=train,
        val=val,
        transfer=cast(Any, images),
        exif=cast(Any, exif),
        val_share=val_share,
    )
    console = Console()
    for line in done.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    words = (
        ["--data", str(target), "--set", f"data.name={done.form}"] if done.form != "lvis" else ["--data", str(target)]
    )
    words += ["--set", f"data.images={done.images}"] if done.images else []
    look = ["python", "-m", "bench", "data", "check", str(target), "--format", done.form]
    look += ["--images", str(done.images)] if done.images else []
    for text in (f"wrote {target}; look at it: {shlex.join(look)}", f"use it: {shlex.join(words)}"):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def check(
    path: Path,
    train: str,
    val: str,
    images: Any,
    form: str,
    console: Console,
    *,
    exif: Any = "ignore",
    decode: bool = True,
    every: bool = False,
) -> int:
    """`bench data check`: 0 clean, warnings or notes only; 1 with errors."""
    from bench.data.check import check as check_data
    from bench.spec import FolderData

    read = [name for name, known in FORMATS.items() if not known.generated]
    if form not in read:
        raise UserError(f"'{form}' is no format", where="--format", allowed=", ".join(read))
    if exif != "ignore" and exif != "apply":
        raise UserError(f"'{exif}' is no way to read orientations", where="--exif", allowed="ignore, apply")
    try:
        spec = FolderData(name=form, path=str(path), train=train, val=val, images=images, exif=exif)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(first["msg"], where="PATH" if first["loc"][0] == "path" else f"--{first['loc'][0]}") from None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=None, visible=decode)
        findings = check_data(
            spec, decode=decode, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    for f in findings:
        console.print(
            f"[{_COLOURS[f.severity]}]{f.severity}[/] {escape(f.where)}: {escape(f.kind)} ({f.count})",
            highlight=False,
            soft_wrap=True,
        )
        examples = f.examples if every else f.examples[:_EXAMPLES]
        for example in examples:
            console.print(f"    {escape(str(example))}", highlight=False, soft_wrap=True)
        if not every and len(f.examples) > _EXAMPLES:
            console.print(f"    and {len(f.examples) - _EXAMPLES:,} more (--all lists them)", highlight=False)
        console.print(f"    {escape(f.advice)}", style="dim", highlight=False, soft_wrap=True)
    numbers = [sum(f.severity == one for f in findings) for one in _COLOURS]
    notes = f", {numbers[2]} notes" if numbers[2] else ""
    console.print(f"{numbers[0]} errors, {numbers[1]} warnings{notes}", highlight=False)
    return 1 if numbers[0] else 0
