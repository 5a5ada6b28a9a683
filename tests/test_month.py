"""notebooks/month.py: the generated month is the same each time, and the run history says of it what its models have counted."""

import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from agentroute.records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord
from agentroute.store import RunStore

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "notebooks" / "month.py"
KINDS = (RunRecord, TurnRecord, ToolCallRecord, MessageRecord, ScoreRecord)
RUNS = 300


def month(file, *options):
    command = [sys.executable, str(SCRIPT), str(file), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def months(tmp_path_factory):
    """Two files of the same seed and one of another, made side by side."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "twin", "other")]
    files = [folder / "month.db" for folder in folders]
    making = [month(file, "--runs", str(RUNS), "--seed", seed) for file, seed in zip(files, ("7", "7", "8"), strict=True)]
    said = [process.communicate()[0] for process in making]
    assert [process.returncode for process in making] == [0, 0, 0], said
    return files


@pytest.fixture(scope="module")
def rows(months):
    """The rows of each file, by record class."""
    stores = [RunStore(file) for file in months]
    found = [{kind: list(store.select(kind)) for kind in KINDS} for store in stores]
    for store in stores:
        store.close()
    return found


@pytest.fixture(scope="module")
def book(months):
    return json.loads(months[0].with_suffix(".json").read_text())


def test_the_same_seed_makes_the_same_rows(rows):
    one, twin, _ = rows
    assert one == twin
    assert all(one[kind] for kind in KINDS)


def test_the_second_book_of_the_same_seed_is_the_same(months):
    one, twin, _ = [file.with_suffix(".json").read_bytes() for file in months]
    assert one == twin


def test_another_seed_makes_another_month(rows):
    one, _, other = rows
    assert len(one[RunRecord]) == len(other[RunRecord]) == RUNS
    assert one[RunRecord] != other[RunRecord]


def test_the_history_holds_what_the_models_have_charged(rows, book):
    turns = [dict(zip(TurnRecord.__dataclass_fields__, row, strict=True)) for row in rows[0][TurnRecord]]
    charged = [dict(zip(book["columns"], row, strict=True)) for row in book["calls"]]
    cost, history = Counter(), Counter()
    for call in charged:
        cost[call["model"]] += Decimal(call["cost_usd"])
    for turn in turns:
        history[turn["request_model"]] += Decimal(str(turn["cost_usd"] or 0))
    assert {model: float(usd) for model, usd in history.items()} == pytest.approx({model: float(usd) for model, usd in cost.items()})
    asked = [turn for turn in turns if turn["replayed_from"] is None]
    for column in ("input_tokens", "output_tokens", "cached_input_tokens"):
        assert sum(turn[column] or 0 for turn in asked) == sum(call[column] for call in charged)
    assert sum(call["unknown_cost_calls"] for call in charged) == sum(turn["cost_usd"] is None for turn in turns) > 0


def test_what_was_paid_already_is_replayed(rows, book):
    turns = [dict(zip(TurnRecord.__dataclass_fields__, row, strict=True)) for row in rows[0][TurnRecord]]
    replayed = [turn for turn in turns if turn["replayed_from"] is not None]
    assert len(replayed) == book["counts"]["replayed"] > 0
    assert {turn["cost_usd"] for turn in replayed} == {0.0}
    assert sum(turn["cost_saved_usd"] for turn in replayed) == pytest.approx(float(book["saved_usd"]), abs=1e-9)


def test_a_month_that_is_there_is_not_overwritten(months):
    before = months[2].read_bytes()
    refused = month(months[2], "--runs", "300")
    assert "exists; delete it, or give another name" in refused.communicate()[0]
    assert refused.returncode == 2
    assert months[2].read_bytes() == before
