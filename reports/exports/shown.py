"""What a report shows beside results: headings, order, figures, rows without a number. Separate because an export
carries it as JSON, so that who reads it needs neither the suite's file nor its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.key import canonical
from bench.lineage import read_stage
from bench.plan.planning import Plan, RowPlan
from bench.spec import Figure
from bench.stage import Stage
from bench.store.store import Store


@dataclass(frozen=True)
class Shown:
    """Of one suite.

    Attributes:
        suite, heading: its name; what stands above its table.
        order: labels of its rows. skipped: label -> why it has no number.
        edges: of the instance bins, in training instances.
        figures, compare_with, columns: as the suite has them.
        against: label -> label of the row that it has to beat.
        planned: its rows and seeds with their stages.
        config: the whole configuration, as YAML.
    """

    suite: str
    heading: str
    order: tuple[str, ...]
    skipped: Mapping[str, str]
    edges: tuple[int, ...]
    figures: tuple[Figure, ...]
    compare_with: str | None
    columns: tuple[str, ...]
    against: Mapping[str, str]
    planned: tuple[RowPlan, ...]
    config: str

    @classmethod
    def of(cls, plan: Plan, skipped: Mapping[str, str], config: str) -> Shown:
        """Of a plan."""
        suite, sections = plan.suite, plan.suite.sections
        return cls(
            suite.name, suite.heading, tuple(row.label for row in suite.rows), skipped, tuple(sections.test.bins),
            tuple(sections.figures), sections.compare_with, tuple(sections.columns), suite.controls, plan.rows, config,
        )  # fmt: skip

    @property
    def evaluations(self) -> dict[str, Stage]:
        """The stages that measured its rows, by key."""
        return {row.evaluate.key: row.evaluate for row in self.planned if row.evaluate is not None}

    def to_json(self) -> dict[str, Any]:
        """JSON-like; stages as their keys."""
        rows = [
            {
                "row": row.label, "seed": row.seed, "method": row.method, "settings": canonical(row.settings),
                "mark": row.mark, "skipped": row.skipped, "evaluate": row.evaluate.key if row.evaluate else None,
                "looks": {name: stage.key for name, stage in row.looks.items()},
            }
            for row in self.planned
        ]  # fmt: skip
        return {
            "suite": self.suite, "heading": self.heading, "order": list(self.order), "skipped": dict(self.skipped),
            "edges": list(self.edges), "figures": [one.model_dump(mode="json") for one in self.figures],
            "compare_with": self.compare_with, "columns": list(self.columns), "against": dict(self.against),
            "rows": rows, "config": self.config,
        }  # fmt: skip


def read_shown(value: Any, store: Store, where: str) -> Shown:
    """What `Shown.to_json` made, with the stages of a store.

    Raises:
        UserError: it is of another form; a stage.json is missing or corrupt.
    """
    stages: dict[str, Stage] = {}
    try:
        rows = TypeAdapter(list[_Row]).validate_python(value["rows"])
        planned = tuple(_planned(row, store, stages) for row in rows)
        rest = {name: part for name, part in value.items() if name != "rows"}
        shown = TypeAdapter(Shown).validate_python({**rest, "planned": ()})
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"not what `bench export` writes: {what}", where=where, hint="export it again") from None
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"not what `bench export` writes ({error})", where=where, hint="export it again") from None
    vars(shown)["planned"] = planned
    return shown


@dataclass(frozen=True)
class _Row:
    row: str
    seed: int
    method: str
    settings: dict[str, Any]
    mark: str
    skipped: str | None
    evaluate: str | None
    looks: dict[str, str]


def _planned(row: _Row, store: Store, stages: dict[str, Stage]) -> RowPlan:
    evaluate = None if row.evaluate is None else _stage(row.evaluate, store, stages)
    looks = {name: _stage(key, store, stages) for name, key in row.looks.items()}
    return RowPlan(row.row, row.seed, row.method, row.settings, evaluate, row.skipped, looks, row.mark)


def _stage(key: str, store: Store, stages: dict[str, Stage]) -> Stage:
    return read_stage(store.load, key, stages)
