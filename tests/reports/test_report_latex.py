"""table.tex: chosen columns, short captions, names as they are, and that TeX takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bench.errors import UserError
from bench.suite.sections import Sections
from reports.latex import to_latex, to_protocol
from reports.load import Draws, RowResult
from reports.tables import Table, table
from tests.reports.made_records import made, made_draws

HOSTILE = r"50%_of & \x{~^$#} <b>é"


def drawn(row: RowResult, *ap: float) -> RowResult:
    return replace(row, draws=made_draws({"AP": np.array(ap)}, {"AP": 99}, row.record.protocol.val_digest))


def content() -> Table:
    rows = [
        drawn(made("baseline", AP=20.0, AP1=1.0, APr=2.0), 19.0, 21.0),
        drawn(made(HOSTILE, AP=26.0, AP1=None, APr=3.0), 24.0, 28.0),
        drawn(made("RFS", AP=21.0, AP1=2.0, APr=3.0, mark="a reconstruction"), 18.0, 24.0),
    ]
    return table(rows, suite="a_b", compare_with="bags_table1", against={"RFS": HOSTILE}, skipped={"gone": "failed: x"})


def test_the_usual_columns() -> None:
    """AP and the bins that there are, the two differences of AP, and the published AP and bins."""
    text = to_latex(content(), label="suite a_b")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert body[0] == (
        r" & \multicolumn{2}{c}{ours} & \multicolumn{1}{c}{$\Delta$ baseline} & "
        r"\multicolumn{1}{c}{$\Delta$ 50\%\_of \& \textbackslash{}x\{\textasciitilde{}\textasciicircum{}\$\#\} "
        r"\textless{}b\textgreater{}é} & \multicolumn{2}{c}{published} \\"
    )
    assert body[1] == r" & AP & AP1 & AP & AP & AP & AP1 \\"
    assert body[2].startswith(r"baseline & 20.0 & 1.0 & -- & -- & ")
    assert r"& 26.0 & -- & \textbf{+6.0} {\scriptsize [3.2, 8.8]} & -- & -- & -- \\" in body[3]
    assert body[4].startswith(r"RFS \textdagger{} & 21.0 & 2.0 & +1.0 {\scriptsize [$-$4.5, 6.5]} & \textbf{$-$5.0} {")
    assert body[5] == r"gone * & -- & -- & -- & -- & -- & -- \\"
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4} \cmidrule(lr){5-5} \cmidrule(lr){6-7}" in text
    assert r"\label{tab:suite-a-b}" in text
    assert r"\begin{tabular}{@{}lrrrrrr@{}}" in text
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    assert caption.startswith(
        r"\caption{a\_b. Box AP (points), one run a row. Differences have 95 \% intervals, for these models;"
    )
    assert "after Holm's correction over the rows, each metric by itself" in caption
    assert "control" not in caption
    assert "RFS: a reconstruction" in caption
    assert len(caption) < 500


def test_what_a_caption_says() -> None:
    """Its title, without the name of the suite; and whose control is which, where there are two."""
    rows = [made(label, AP=20.0) for label in ("baseline", "RFS", "BAGS", "x2")]
    against = {"RFS": "baseline", "x2": "baseline", "BAGS": "RFS"}
    titled = table(rows, suite="t1: Remedies & more", against=against)
    assert r"\caption{Remedies \& more. Box AP (points), one run a row." in to_latex(titled, label="t1")
    assert r"\caption{Box AP (points), one run a row.}" in to_latex(table(rows, suite="t1"), ["AP"], label="t1")
    whose = "The control is not the same for all rows: baseline for RFS, x2; RFS for BAGS."
    assert whose in to_latex(titled, ["AP", "cAP"])
    assert "control is not" not in to_latex(titled, ["AP", "dAP"])


def test_what_pdflatex_lacks_is_said() -> None:
    """It stops at a letter of another script; a file that says nothing would cost an hour."""
    plain = to_latex(table([made("a | `b` é Ł", AP=20.0)], suite="t"))
    assert r"a \textbar{} \textasciigrave{}b\textasciigrave{} é Ł &" in plain
    assert "LuaLaTeX" not in plain
    strange = to_latex(table([made("שלום", AP=20.0), made("猫 Δ", AP=20.0)], suite="t")).splitlines()
    assert strange[1] == "% For LuaLaTeX or XeLaTeX with a font that has them; pdfLaTeX lacks: " + "".join(
        sorted("שלום猫")
    )


def test_chosen_columns() -> None:
    text = to_latex(content(), ["dAP", "AP", "cAP1"])
    assert r" & AP & AP & AP1 \\" in text
    assert text.index("Delta$ baseline") < text.index("ours") < text.index("Delta$ 50")
    assert r"\begin{table}" in to_latex(content(), ["AP", "dAP"])
    assert r"\begin{table*}" in to_latex(content(), ["AP", "AP1", "APr", "dAP", "dAP1", "dAPr", "cAP", "cAP1"])
    with pytest.raises(UserError, match="Did you mean 'dAP1'"):
        to_latex(content(), ["AP", "ddAP1"])


def test_columns_of_a_suite_are_checked_when_it_is_read() -> None:
    assert Sections(columns=("AP", "dAP1", "cAPr", "pAP75", "ACCbg")).columns[1] == "dAP1"
    for wrong in (("AP10",), ("xAP",), ("AP", "AP"), ("mAP",)):
        with pytest.raises(ValidationError, match="column"):
            Sections(columns=wrong)


def test_the_protocol_stands_in_a_file_of_its_own() -> None:
    text = to_protocol(content())
    assert r"\% interval over val images" in text
    assert "train digest" in text
    assert "gone: failed: x." in text
    assert not re.search(r"(?<!\\)[&#_]", text)


def three_seeds() -> Table:
    """Every block, with spreads and intervals: the widest that a suite has by itself."""
    values = {f"AP{i}": 10.0 * i for i in range(1, 5)}
    rows = [
        replace(made(label, seed, AP=20.0 + seed + gain, **values), draws=None)
        for label, gain in (("baseline", 0.0), ("tau-norm-select", 11.5), ("cls-retrain", -11.5))
        for seed in (1, 2, 3)
    ]
    rows = [replace(row, draws=draws_of(row)) for row in rows]
    return table(
        rows, suite="table1", compare_with="bags_table1", against={"tau-norm-select": "cls-retrain"}, order=["baseline"]
    )


def draws_of(row: RowResult) -> Draws:
    ap = row.record.metrics["AP"]
    assert ap is not None
    return made_draws({"AP": ap + np.linspace(-1, 1, 50)}, {"AP": 99}, row.record.protocol.val_digest)


def test_what_is_wide_loses_published_columns() -> None:
    text = to_latex(three_seeds())
    assert r"\footnotesize\setlength{\tabcolsep}{3pt}" in text
    (said,) = [line for line in text.splitlines() if "Left out" in line]
    assert said == "% Left out, so that it fits: pAP2 pAP3 pAP4. Columns are chosen by: bench report --columns"
    assert r" & AP & AP1 & AP2 & AP3 & AP4 & AP & AP & AP & AP1 \\" in text
    in_vain = replace(three_seeds(), baseline="a name that is far too long for a page " * 4)
    assert "Left out" not in to_latex(in_vain)
    assert "wider than a page" in to_latex(in_vain)
    names = ["AP", *(f"{block}AP{i}" for block in ("", "d", "p") for i in range(1, 5)), "dAP", "cAP", "dAP", "cAP"]
    chosen = to_latex(three_seeds(), names)
    assert "wider than a page: choose fewer" in chosen
    assert chosen.count(" & AP4") == 3


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["", "twocolumn"])
@pytest.mark.parametrize("names", [(), ("AP", "AP1", "dAP"), ("AP", "dAP")])
@pytest.mark.parametrize("make", [content, three_seeds])
def test_tex_takes_it(make: Callable[[], Table], names: Sequence[str], columns: str, tmp_path: Path) -> None:
    """Without an overfull box: a table that does not fit is none. (An article in one column has the narrower text.)"""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-recommended")
    text = to_latex(make(), names)
    (tmp_path / "table.tex").write_text(text)
    (tmp_path / "protocol.tex").write_text(to_protocol(make()))
    (tmp_path / "paper.tex").write_text(
        rf"\documentclass[{columns}]{{article}}\usepackage[utf8]{{inputenc}}\usepackage{{booktabs}}"
        "\n\\begin{document}\\sloppy\n\\input{table}\n\\input{protocol}\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert "Float too large" not in ended.stdout
    assert "Missing character" not in ended.stdout
    if columns or names:
        assert "Overfull" not in ended.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
