"""`data check` and `data fill-negatives`: look at data before it costs GPU time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bench.data.formats import FORMATS
from bench.errors import UserError


def check_command(
    path: Annotated[Path, typer.Argument(help="Folder of LVIS- or COCO-format data.", show_default=False)],
    train: Annotated[str, typer.Option(help="Training annotations, below PATH.")] = "annotations/train.json",
    val: Annotated[str, typer.Option(help="Validation annotations, below PATH.")] = "annotations/val.json",
    images: Annotated[str, typer.Option(help="Folder of the images, below PATH.")] = "images",
    form: Annotated[str, typer.Option("--format", help="Format of the annotations, e.g. coco.")] = "lvis",
) -> None:
    """Find what would hurt later: missing images, unknown ids, bad boxes, no negative lists, untrained classes."""
    raise typer.Exit(check(path, train, val, images, form, Console()))


def fill_command(
    source: Annotated[Path, typer.Argument(help="Annotation file whose annotation is exhaustive.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
) -> None:
    """Write a copy in which every class absent from an image is a negative, so that its false positives count."""
    from bench.data.check import fill_negatives

    filled: Any = fill_negatives(source, target)
    Console().print(f"wrote {target}" + (f" ({filled} images filled)" if isinstance(filled, int) else ""))


def check(path: Path, train: str, val: str, images: str, form: str, console: Console) -> int:
    """`bench data check`: 0 clean or warnings only, 1 with errors."""
    from bench.data.check import check as check_data

    read = [name for name, known in FORMATS.items() if not known.generated]
    if form not in read:
        raise UserError(f"'{form}' is no format", where="--format", allowed=", ".join(read))
    findings = check_data(str(path), train, val, images, form)
    for f in findings:
        colour = "bold red" if f.severity == "error" else "yellow"
        console.print(
            f"[{colour}]{f.severity}[/] {escape(f.where)}: {escape(f.kind)} ({f.count})",
            highlight=False,
            soft_wrap=True,
        )
        for example in f.examples:
            console.print(f"    {escape(str(example))}", highlight=False, soft_wrap=True)
        console.print(f"    {escape(f.advice)}", style="dim", highlight=False, soft_wrap=True)
    errors = sum(f.severity == "error" for f in findings)
    console.print(f"{errors} errors, {len(findings) - errors} warnings", highlight=False)
    return 1 if errors else 0
