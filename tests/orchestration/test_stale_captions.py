"""A corpus whose captioner changed shows as stale in Dagster, and is fresh again once it is captioned anew."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orchestration import definitions, partitions, rooms
from orchestration.assets.stages import build_assets
from orchestration.resources import Compute, Lake
from schemas.captions import CAPTIONS, PAIRS
from schemas.store import Store
from tests.captioner.test_poison import many
from tests.captioner.worlds import pairs

pytestmark = pytest.mark.dagster

CAPTIONER, CORPUS = "captioner_checkpoint", "captions"
SMALL = ("captioner.require_fields=false", "captioner.retries=0", "captioner.decoding.dense_tokens=8")


def materialise(instance: dg.DagsterInstance, store: Store, name: str, *settings: str) -> None:
    lake = Lake(root=store.root, recipe="tiny", settings=[*SMALL, *settings])
    done = dg.materialize(
        build_assets(rooms.all_stages()),
        instance=instance,
        partition_key="b" if name == CORPUS else None,
        selection=dg.AssetSelection.assets(name),
        resources={"lake": lake, "compute": Compute(executor="local")},
    )
    assert done.success


def status(instance: dg.DagsterInstance) -> tuple[StaleStatus, list[str]]:
    graph = definitions.build(rooms.all_stages(), Lake(root="nowhere"), Compute()).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    key = dg.AssetKey(CORPUS)
    causes = resolver.get_stale_root_causes(key, "b")
    return resolver.get_status(key, "b"), sorted({c.asset_key.to_user_string() for c in causes})


def test_a_corpus_whose_captioner_changed_is_stale_until_it_is_captioned_again(tmp_path: Path) -> None:
    store = many(tmp_path, 2)
    store.commit(PAIRS, PAIRS.from_rows(pairs()))
    with dg.DagsterInstance.ephemeral() as instance:
        partitions.add(instance, "b")
        assert status(instance)[0] == StaleStatus.MISSING
        materialise(instance, store, CAPTIONER)
        materialise(instance, store, CORPUS)
        assert status(instance) == (StaleStatus.FRESH, [])
        before = store.committed(CAPTIONS, "b")
        materialise(instance, store, CAPTIONER)  # nothing changed: the same weights
        assert status(instance)[0] == StaleStatus.FRESH
        materialise(instance, store, CAPTIONER, "captioner.train.seed=7")
        assert status(instance) == (StaleStatus.STALE, [CAPTIONER])
        materialise(instance, store, CORPUS, "captioner.train.seed=7")
        assert status(instance) == (StaleStatus.FRESH, [])
        assert store.committed(CAPTIONS, "b").made_by != before.made_by
