"""The notebooks run from top to bottom in a real kernel, on the model of this machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import agentroute

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_quickstart_calls_its_tools_and_accounts_for_itself(smollm2, tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    run = subprocess.run(
        [sys.executable, "notebooks/run.py", "notebooks/01_quickstart.ipynb", "--to", "build"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    store = tmp_path / "build" / "01_quickstart.db"
    runs, turns, calls = agentroute.runs(store), agentroute.turns(store), agentroute.tool_calls(store)
    assert runs["status"].tolist() == ["ok"] * len(runs)
    assert [(call.tool_name, json.loads(call.arguments_text), call.status) for call in calls.itertuples()] == [
        ("order_status", {"order_id": 4821}, "ok"),
        ("refund", {"order_id": 4821, "reason": "broken"}, "ok"),
        ("order_status", {"order_id": 77}, "ok"),
    ]
    assert json.loads(runs["output_text"][2])["order_id"] == 4821
    assert turns["cost_usd"].tolist() == [0.0] * len(turns)
    assert (turns["output_tokens"] > 0).all()
    for shown in (calls["result_text"][0], "order_status", "Cost", str(tmp_path / "build" / "01_quickstart.html")):
        assert shown in run.stdout
    executed = nbformat.read(tmp_path / "build" / "01_quickstart.ipynb", as_version=4)
    cards = [o["data"]["text/html"] for c in executed.cells for o in c.get("outputs", []) if "agr" in o.get("data", {}).get("text/html", "")]
    assert len(cards) >= 3
    assert max(map(len, cards)) < 10_000
