"""Where jobs run and what they ask for: suites/_clusters/NAME.yaml. Separate from the suite, so that one suite runs on
a laptop and on a cluster; nothing of it is ever in a key.

`stages` changes the resources of jobs of one kind (an evaluation needs no GPU), and a row may have `cluster: {...}`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bench.errors import UserError, unknown
from bench.launchers import LAUNCHERS
from bench.spec import Positive, Processes, Section
from bench.stage import KINDS
from bench.suite import yamlfile
from bench.suite.validation import blame, message

CLUSTERS = Path(__file__).resolve().parents[2] / "suites" / "_clusters"
Option = bool | int | float | str


class Resources(Section):
    """The resources of one job. Null: the cluster's default."""

    partition: str | None = None
    """Of the cluster, as `sinfo` lists them."""
    account: str | None = None
    """That the job is charged to."""
    qos: str | None = None
    """Quality of service, as `sacctmgr show qos` lists them."""
    time_min: Annotated[int, Field(ge=1, le=10_000_000)] = 60
    """Limit of one job, minutes; a job that reaches it continues in the next one."""
    gpus: Annotated[int, Field(ge=0, le=4096)] = 0
    """Of a job; several train one model in as many `tasks`."""
    cpus: Processes = 1
    """Of each task."""
    mem_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Of a job, GB."""
    nodes: Literal[1] = 1
    """A job runs on one machine."""
    tasks: Processes = 1
    """Processes of a job; several are data parallel."""
    sbatch: Mapping[str, Option] = Field(default_factory=dict)
    """Any other option of sbatch, e.g. {constraint: a100}."""


class Cluster(Resources):
    """One file of suites/_clusters."""

    kind: str = "local"
    """Who runs the jobs: local, slurm, or debug (in the driver itself, for a debugger)."""
    array_parallelism: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Tasks of one array that run at a time, at most."""
    setup: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Shell lines before a job: modules, environment."""
    python: str | None = None
    """The command that starts Python, e.g. in a container; None: the driver's."""
    signal_delay_s: Positive = 120
    """Seconds before the limit at which a job is signalled to save."""
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 3
    """How often in a row, without a new checkpoint, a killed job is tried again."""
    pause_s: Annotated[float, Field(ge=0, le=1_000_000)] = 30.0
    """Seconds before the first retry; doubles."""
    stages: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Changes of the resources by kind of stage, e.g. {train: {gpus: 1}}."""

    @field_validator("kind")
    @classmethod
    def _there_is_such_a_launcher(cls, kind: str) -> str:
        if kind in LAUNCHERS:
            return kind
        *most, last = (f"'{name}'" for name in LAUNCHERS)
        expected = f"{', '.join(most)} or {last}"
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})

    @model_validator(mode="after")
    def _a_job_is_signalled_before_its_limit(self) -> Cluster:
        if LAUNCHERS[self.kind].asks_resources and self.signal_delay_s >= 60 * self.time_min:
            raise ValueError(f"signal_delay_s must be less than time_min ({self.time_min} min)")
        return self

    def of(self, kinds: Collection[str], row: Mapping[str, Any] | None = None) -> Resources:
        """The resources of a job whose stages are of these kinds.

        Later wins: the file, its `stages`, the row's `cluster`, the row's `stages`. Over several kinds: see `joined`.

        Raises:
            UserError: an unknown setting, or an illegal value.
        """
        own = dict(row or {})
        below = own.pop("stages", {})
        base = {name: getattr(self, name) for name in Resources.model_fields}
        return joined([resources(base, self.stages.get(k, {}), own, below.get(k, {})) for k in sorted(set(kinds))])


def resources(*layers: Mapping[str, Any], where: str = "") -> Resources:
    """Resources of layers, later ones first; `sbatch` options are merged.

    Raises:
        UserError: see `Cluster.of`.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        options = {**merged.get("sbatch", {}), **layer.get("sbatch", {})} if _mapping(layer.get("sbatch")) else None
        merged |= layer
        if options is not None:
            merged["sbatch"] = options
    try:
        return Resources.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        if first["type"] == "extra_forbidden":
            raise unknown("cluster setting", name, Resources.model_fields, where=where) from None
        raise UserError(f"{name}: {message(first)}", where=where) from None


def joined(all_: Sequence[Resources]) -> Resources:
    """The resources of a job of several parts, one after another: the maximum of each number; names and options are
    those of the most demanding part (most GPUs, then CPUs, then time)."""
    first = max(all_, key=lambda r: (r.gpus, r.cpus, r.time_min))
    memory = [r.mem_gb for r in all_ if r.mem_gb is not None]
    most = {name: max(getattr(r, name) for r in all_) for name in ("time_min", "gpus", "cpus", "tasks")}
    return first.model_copy(update={**most, "mem_gb": max(memory, default=None)})


def check_row(override: Any, where: str) -> Mapping[str, Any]:
    """A row's `cluster` section, checked.

    Raises:
        UserError: not a mapping, or an illegal setting or value.
    """
    if not isinstance(override, Mapping):
        raise UserError(
            "cluster must be a mapping", where=where, allowed=", ".join((*Resources.model_fields, "stages"))
        )
    own = dict(override)
    stages = own.pop("stages", {})
    _check_stages(stages, where)
    strange = next((name for name in own if name not in Resources.model_fields), None)
    if strange is not None:
        raise unknown("cluster setting of a row", str(strange), (*Resources.model_fields, "stages"), where=where)
    resources(own, where=where)
    return dict(override)


def read(name: str) -> Cluster:
    """The cluster of a name or of a path.

    Raises:
        UserError: no such file, or anything wrong in it, with file:line and what is legal.
    """
    document = yamlfile.read(path_of(name), "cluster")
    try:
        cluster = Cluster.model_validate(document.value)
    except ValidationError as error:
        raise blame(error, document, (), Cluster) from None
    for kind in cluster.stages:
        _check_kind(kind, f"{document.where('stages', kind)} stages")
        where = f"{document.where('stages', kind)} stages.{kind}"
        resources(cluster.stages[kind], where=where)
    return cluster


def path_of(name: str) -> Path:
    """The file of a cluster.

    Raises:
        UserError: neither a file of suites/_clusters nor a path.
    """
    known = {file.stem: file for file in CLUSTERS.glob("*.yaml")}
    if name in known:
        return known[name]
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    raise unknown("cluster", name, known, where="--cluster", hint="or the path of a file of yours: --cluster mine.yaml")


def name_of(path: str) -> str:
    """The argument of --cluster for a file: the inverse of `path_of`."""
    file = Path(path)
    if file.parent == CLUSTERS:
        return file.stem
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)


def _check_stages(stages: Any, where: str) -> None:
    if not _mapping(stages):
        raise UserError("stages must be a mapping", where=where, allowed="stages: {evaluate: {gpus: 0}}")
    for kind, changes in stages.items():
        _check_kind(kind, where)
        resources(changes if _mapping(changes) else {str(changes): None}, where=f"{where}.stages.{kind}")


def _check_kind(kind: Any, where: str) -> None:
    if kind not in KINDS:
        raise unknown("kind of stage", str(kind), KINDS, where=where)


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
