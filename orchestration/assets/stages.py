"""One Dagster asset per table, made from the rooms' lists of stages.

The tables of one stage are one multi-asset: one step, one Ray job.  A step asks first whether the tables
already are what the job would make (a read of footers); then nothing is submitted and the asset says
"reused".  A retry helps against a lost worker, never against a request that cannot be met.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from orchestration import checks, drift
from orchestration.assets import describe
from orchestration.partitions import BATCHES
from orchestration.ray_jobs import Job, JobFailed, RayJobs, stage_arguments, unit
from orchestration.resources import Compute, Lake
from orchestration.rooms import Placed, chain_lengths
from pipelines.execute import Result, reusable, run_stage
from schemas.errors import DailiesError, UsageError
from schemas.store import Store
from schemas.table import Table

_OWNERS = {"curation": "team:data", "captioner": "team:models", "trainer": "team:models", "report": "team:data"}
_FRESH = dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(days=30), warn_window=datetime.timedelta(days=7))
_WATCHED = ("manifest", "report")
"""What people take for the current state of a root; the UI says when it is older than a week."""
_RETRY = dg.RetryPolicy(max_retries=1, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def build_assets(placed: Iterable[Placed]) -> list[dg.AssetsDefinition]:
    """All assets of a list of stages."""
    known = {p.name: p for p in placed}
    waiting = chain_lengths(list(known.values()))
    return [_asset(p, [known[n] for n in p.after], waiting[p.name]) for p in known.values()]


def _asset(placed: Placed, before: list[Placed], priority: int) -> dg.AssetsDefinition:
    stage = placed.stage

    @dg.multi_asset(
        name=stage.name,
        specs=[_spec(placed, i, before) for i in range(len(stage.writes))],
        check_specs=[
            dg.AssetCheckSpec(c.name, asset=t.name, description=c.doc, blocking=c.blocking)
            for t in stage.writes
            for c in checks.checks_of(t)
        ]
        + [
            dg.AssetCheckSpec(drift.NAME, asset=t.name, description=drift.DOC)
            for t in stage.writes
            if drift.has_scores(t)
        ],
        partitions_def=BATCHES if stage.partitioned else None,
        retry_policy=_RETRY,
        pool="gpu" if any(t.name.endswith("_checkpoint") for t in stage.writes) else None,
        op_tags={"dailies/room": placed.room, "dagster/priority": str(priority)},
    )
    def materialise(context: dg.AssetExecutionContext, lake: Lake, compute: Compute) -> Iterator[Any]:
        yield from _materialise(context, placed, lake, compute)

    return materialise


def _spec(placed: Placed, index: int, before: list[Placed]) -> dg.AssetSpec:
    stage = placed.stage
    table = stage.writes[index]
    mapping = None if stage.partitioned else dg.AllPartitionMapping()
    read = {t.name for t in stage.reads + stage.optional}
    deps = []
    for maker in before:
        wanted = [t for t in maker.stage.writes if t.name in read] or list(maker.stage.writes)
        deps += [dg.AssetDep(t.name, partition_mapping=mapping if t.partitioned else None) for t in wanted]
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description="\n\n".join(d for d in (table.doc, stage.doc) if d),
        metadata=describe.definition_metadata(table, stage.name),
        group_name=placed.room,
        kinds={"parquet", "ray"},
        owners=[_OWNERS.get(placed.room, "team:data")],
        code_version=str(stage.version),
        freshness_policy=_FRESH if table.name in _WATCHED else None,
    )


def _materialise(
    context: dg.AssetExecutionContext, placed: Placed, lake: Lake, compute: Compute
) -> Iterator[dg.MaterializeResult]:
    stage, store = placed.stage, lake.store()
    batch = context.partition_key if stage.partitioned else None
    try:
        config = lake.config(placed)
        result, job_url = reusable(stage, store, config, batch=batch), ""
        if result is None:
            result, job_url = _compute(context, placed, lake, compute, batch)
        for table in stage.writes:
            commit = store.committed(table, batch)
            if commit is None:
                raise dg.Failure(f"stage `{stage.name}` ended and table `{table.name}` is not there")
            shown = describe.metadata(store, table, commit, computed=result.computed, job_url=job_url)
            shown |= describe.lineage(table, stage)
            if table == stage.writes[0]:
                shown.update(describe.pictures(store, commit))
            found = _check(store, placed, table, batch)
            if drift.has_scores(table):
                now = drift.moments(table, store.read(table, batch=batch))
                shown |= now
                found.append(_drift(context, table, batch, now))
            yield dg.MaterializeResult(
                asset_key=table.name,
                metadata=shown,
                data_version=dg.DataVersion(commit.content),
                check_results=found,
            )
        context.log.info(f"{stage.name}: {describe.summary(result)}")
    except JobFailed as e:
        tail = dg.MetadataValue.md(f"```\n{e.log_tail}\n```")
        raise dg.Failure(
            f"{stage.name}: {e}\n{_last_lines(e.log_tail)}",
            metadata={"ray_job": e.submission_id, "log_tail": tail},
            allow_retries=e.may_succeed_later,
        ) from e
    except DailiesError as e:
        raise dg.Failure(f"{stage.name}: {e}", allow_retries=not isinstance(e, UsageError)) from e


def _compute(
    context: dg.AssetExecutionContext, placed: Placed, lake: Lake, compute: Compute, batch: str | None
) -> tuple[Result, str]:
    """Run the stage, on Ray or here; returns its result and its job's address."""
    stage, store = placed.stage, lake.store()
    if compute.executor == "local":
        return run_stage(stage, store, lake.config(placed), batch=batch), ""
    jobs = RayJobs(store.root, compute.address, compute.python)
    arguments = stage_arguments(
        stage.name, root=store.root, batch=batch, recipe=lake.recipe, settings=lake.settings, executor="ray"
    )
    job = Job(unit(store.root, stage.name, batch), arguments, context.run.run_id, context.retry_number)
    name = jobs.run(job, say=context.log.info)
    made = reusable(stage, store, lake.config(placed), batch=batch)
    if made is None:
        what = f"Ray job {name} succeeded, and stage `{stage.name}` still is not up to date"
        raise dg.Failure(f"{what}: its inputs or its code changed while it ran")
    return Result(**{**_fields(made), "computed": True}), f"{jobs.address}/#/jobs/{name}"


def _fields(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in Result.__dataclass_fields__}


def _check(store: Store, placed: Placed, table: Table, batch: str | None) -> list[dg.AssetCheckResult]:
    blocking = {c.name: c.blocking for c in checks.checks_of(table)}
    return [
        dg.AssetCheckResult(
            asset_key=table.name,
            check_name=name,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.ERROR if blocking[name] else dg.AssetCheckSeverity.WARN,
            metadata=finding.numbers,
        )
        for name, finding in checks.findings(store, table, batch).items()
    ]


def _drift(
    context: dg.AssetExecutionContext, table: Table, batch: str | None, now: Mapping[str, float]
) -> dg.AssetCheckResult:
    """Hold the scores against those of this batch's last materialisation."""
    asked = dg.AssetRecordsFilter(dg.AssetKey(table.name), asset_partitions=[batch] if batch else None)
    records = context.instance.fetch_materializations(asked, limit=1).records
    event = records[0].asset_materialization if records else None
    before = {k: v.value for k, v in event.metadata.items()} if event else {}
    finding = drift.finding(before, now)
    return dg.AssetCheckResult(
        asset_key=table.name,
        check_name=drift.NAME,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=finding.numbers,
    )


def _last_lines(log: str, count: int = 6) -> str:
    return "\n".join([line for line in log.splitlines() if line.strip()][-count:])
