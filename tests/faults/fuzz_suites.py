"""Suites that nobody should have written, made from one that works: values, names and places change, bytes are lost.

`cases(seed, n)` makes the same cases for the same numbers. The first ones are known attacks.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from tests.faults.fuzz_case import Case, document, mutated, odd, scarred, yaml_text

SUITE: dict[str, Any] = {
    "preset": "cpu",
    "data": {"name": "glyphs", "seed": "follow", "classes": 4, "size": 64, "objects": 4, "object_px": [10, 24]},
    "input": {"min_size": 64, "max_size": 64, "mean": [0.4, 0.4, 0.4], "flip": 0.5, "scale_jitter": [0.8, 1.2]},
    "detector": {
        "norm": "batch", "widths": [8, 16, 24, 32], "rpn": {"anchor_sizes": [[12, 20]], "nms": 0.7, "beta": 1.0},
        "roi": {"width": 64, "samples": 32, "box_weights": [10, 10, 5, 5]},
    },
    "schedule": {"steps": 3, "batch": 4, "lr": 0.01, "warmup": 1, "decay": "steps", "drops": [0.5], "clip": 1.0},
    "stages": {"classifier_only": {"steps": 2, "lr": 0.01}, "second": {"epochs": 1}},
    "test": {"bins": [5, 10, 20], "nms": 0.5, "score_threshold": 0.0001},
    "machine": {"threads": 1, "workers": 0, "device": "cpu"},
    "cost": {"train_step": 0.1, "predict": 2, "measured_on": "here"},
    "seeds": [0, 1],
    "title": "a trial",
    "figures": [{"kind": "sweep", "x": "beta", "metrics": ["AP"]}, {"kind": "bars", "rows": ["BAGS 1"]}],
    "compare_with": "bags_table1",
    "against": "baseline",
    "rows": {
        "baseline": {"method": "baseline"},
        "BAGS {beta}": {"method": "bags", "edges": [3, 9], "each": {"beta": [1, 2]}, "schedule": {"steps": 5}},
        "RFS": {"method": "rfs", "t": {"images": 3}, "rounding": "ceil", "cluster": {"time_min": 9, "gpus": 1}},
        "tau": {"method": "tau_norm", "tau": 0.5, "background": "scaled", "against": "RFS"},
        "NCM": {"method": "ncm", "feature": "fc", "data": {"classes": 5}},
        "weighted": {"method": "reweight", "trainable": "classifier", "clip": [0.01, 5]},
        "steps": {"method": "stepwise", "M": [{"images": 9}, {"images": 3}], "few": "all", "t_expert": None},
    },
}  # fmt: skip
SEARCH: dict[str, Any] = {
    **SUITE,
    "schedule": {**SUITE["schedule"], "optimiser": "adamw", "betas": [0.9, 0.99], "groups": {"fpn": {"lr": 0.1}}},
    "search": {
        "space": {
            "beta": "0.5:32:log", "others": [True, False], "schedule.lr": {"low": 0.001, "high": 0.1, "log": True},
            "schedule.steps": "1:5:int", "tau": {"low": 0, "high": 1, "step": 0.25, "when": {"row": "tau"}},
        },
        "rows": ["BAGS 1", "tau"], "objective": ["AP", "AP1"], "sampler": "nsgaii", "trials": 6, "round": 3,
        "hours": 1, "seeds": [0], "tune": 0.3, "tune_seed": 1, "finals": 2,
    },
}  # fmt: skip
ROWS = "rows: {baseline: {method: baseline}}\n"
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MANY = ", ".join(f"{name}: {list(range(1, 31))}" for name in ("beta", "lr", "steps", "clip", "warmup"))
ATTACKS = {
    "laughs": f"preset: cpu\n{LAUGHS}{ROWS}",
    "each": f'preset: cpu\nrows: {{"{{beta}}{{lr}}{{steps}}{{clip}}{{warmup}}": {{method: bags, each: {{{MANY}}}}}}}\n',
    "deep": f"preset: cpu\nx: {'[' * 5000}\n{ROWS}",
    "deep blocks": "preset: cpu\nx:\n" + "".join(f"{'  ' * i}- \n" for i in range(1, 300)) + ROWS,
    "a long line": f"preset: cpu\n# {'x' * 300_000}\n{ROWS}",
    "a long word": f"preset: cpu\n{'x' * 50_000}: 1\n{ROWS}",
    "many rows of one name": "preset: cpu\nrows:\n" + "  a: {method: baseline}\n" * 500,
    "methods from nowhere": "preset: cpu\nmethods_path: " + "n" * 5000 + "\n" + ROWS,
    "weights from nowhere": "preset: cpu\ndetector: {weights: " + "n" * 300 + "}\n" + ROWS,
    "many seeds": f"preset: cpu\nseeds: {list(range(2000))}\n{ROWS}",
}

COMMANDS = (
    ("plan",), ("plan",), ("plan", "--show-config"), ("status",), ("report", "--json", "--store", "."), ("why", "RFS"),
)  # fmt: skip
SEARCH_COMMANDS = (
    ("plan",), ("plan", "--json"), ("status",), ("search", "--status"), ("search", "--best", "--json"),
    ("why", "trial 0"), ("report", "--store", "."),
)  # fmt: skip


def cases(seed: int, n: int) -> Iterator[Case]:
    """`n` suites, each with a command that reads it and starts nothing."""
    rng = random.Random(f"suites {seed}")
    attacks = list(ATTACKS.items())
    for number in range(n):
        if number < len(attacks):
            name, text = attacks[number]
            yield Case(name, ("plan", "s.yaml"), {"s.yaml": text.encode()})
            continue
        name, content = _suite(rng, SUITE)
        words = rng.choice(COMMANDS)
        yield Case(f"{number}: {name}", (words[0], "s.yaml", *words[1:]), {"s.yaml": content})


def searches(seed: int, n: int) -> Iterator[Case]:
    """`n` suites with a search, of which nothing is started either: most have something wrong in that section."""
    rng = random.Random(f"searches {seed}")
    for number in range(n):
        whole = rng.random() < 0.2
        if whole:
            name, content = _suite(rng, SEARCH)
        else:
            section = {"search": copy.deepcopy(SEARCH["search"])}
            name = "; ".join(mutated(section, rng) for _ in range(rng.choice((1, 1, 2))))
            content = document({**SEARCH, **section}).encode("utf-8", "surrogatepass")
        words = rng.choice(SEARCH_COMMANDS)
        yield Case(f"{number}: {name}", (words[0], "s.yaml", *words[1:]), {"s.yaml": content})


def _suite(rng: random.Random, base: dict[str, Any]) -> tuple[str, bytes]:
    tree = copy.deepcopy(base)
    if rng.random() < 0.2:
        kind, content = scarred(document(tree), rng)
        return kind, content
    names = [mutated(tree, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    text = document(tree)
    if rng.random() < 0.1:
        text = f"anchor: &x {yaml_text(odd(rng))}\n{text}other: *x\n"
    return "; ".join(names), text.encode("utf-8", "surrogatepass")
