"""The report's table of seen and unseen combinations."""

from typing import Any

from pipelines.report.combinations import section


class _Tables:
    def __init__(self, *rows: dict[str, Any]) -> None:
        self._rows = rows

    def rows(self, table: Any) -> list[dict[str, Any]]:
        return list(self._rows)


def _row(group: str, value: float | None, n: int) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"group": group, "name": "shape", "value": value, "low": low, "high": high, "n": n}


def test_one_row_holds_unseen_and_seen_beside_their_controls() -> None:
    tables = _Tables(
        _row("unseen_whole", 0.5, 20),
        _row("control_unseen_whole", 0.25, 20),
        _row("seen_whole", 0.75, 40),
        _row("unseen_subject", None, 0),
    )
    text, _, count = section(tables)  # type: ignore[arg-type]
    assert count == 1
    for cell in ("whole", "shape", "0.5", "0.400 to 0.600", "0.25", "0.75", "0.650 to 0.850"):
        assert f">{cell}<" in text


def test_without_unseen_prompts_there_is_no_table() -> None:
    assert section(_Tables(_row("unseen_whole", None, 0)))[0] == ""  # type: ignore[arg-type]
