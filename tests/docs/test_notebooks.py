"""The notebooks run from top to bottom in a real kernel: one on the model of this machine, one on a month of runs."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

import agentroute
from tests.ipython.sandbox import kernel_environment

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


def executed(name, folder):
    """A notebook after a run in a folder of its own: the document, and its run history."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("*.db*", "month-parquet", "month.json"))
    command = [sys.executable, "notebooks/run.py", f"notebooks/{name}.ipynb", "--to", "build"]
    environment = {**kernel_environment(folder), "PYTHONPATH": str(ROOT), "AGENTROUTE_CACHE": os.environ["AGENTROUTE_CACHE"]}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return nbformat.read(folder / "build" / f"{name}.ipynb", as_version=4), folder / "build" / f"{name}.db"


def shown(document, beginning):
    """What the one code cell that begins so has shown, as plain text."""
    (cell,) = (cell for cell in document.cells if cell.cell_type == "code" and cell.source.startswith(beginning))
    outputs = [output.get("text") or output["data"].get("text/plain", "") for output in cell.outputs]
    return "\n".join(outputs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_on_prompts_compares_versions_samples_and_agents(smollm2, tmp_path):
    document, store = executed("03_prompt_iteration", tmp_path)
    runs = agentroute.runs(store)
    assert runs["status"].tolist() == ["ok"] * 8
    assert runs["agent_name"].tolist() == ["editor"] * 5 + ["friendly", "plain", "editor"]
    assert runs["tag_version"].fillna("").tolist() == ["1"] + ["2"] * 4 + ["", "", "2"]
    assert runs["tag_comparison"].notna().tolist() == [False] * 2 + [True] * 5 + [False]
    assert runs["tag_comparison"].nunique() == 2
    changed = shown(document, "%agent diff")
    assert "instructions" in changed and "factual" in changed
    assert "3 runs" in shown(document, "%%agent editor -n 3")
    assert sorted(agentroute.scores(store)["name"]) == ["warm", "warm"]
    assert "budget" in shown(document, "usage()").lower() and "8 runs" in shown(document, "usage()")
    assert "5 runs" in shown(document, "from agentroute_ipython import history")
    assert runs["output_text"][7] in shown(document, "import asyncio").replace("\\'", "'")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_on_tools_runs_what_is_approved_and_nothing_else(smollm2, tmp_path):
    document, store = executed("04_tools_and_approval", tmp_path)
    assert agentroute.runs(store)["status"].tolist() == ["ok"] * 5
    calls = agentroute.tool_calls(store)
    assert calls["tool_name"].tolist() == ["order_status", "refund", "refund", "refund", "warehouse_status"]
    asked, approved, by_rule, failed = calls["result_text"].tolist()[1:]
    assert "needs approval, and nobody can give it here" in asked
    assert approved == "Order 4821 is refunded, 19.90 EUR."
    assert "orders from 1000 on are refunded by the office" in by_rule
    assert "TimeoutError: the warehouse does not answer" in failed
    assert "nobody is there to answer" in shown(document, "%%agent support --as asked")
    assert shown(document, "[(call.tool_name, call.status, call.result_text) for call in asked").endswith("[])")
    assert shown(document, "[(call.tool_name, call.status, call.result_text) for call in approved").endswith("[4821])")
    assert shown(document, "[(call.tool_name, call.result_text) for call in by_rule").endswith("[4821])")


# ---- the cost analysis: what it finds is compared with the book that the played models have kept, `month.json` ----

FOUND = """
import json
print(json.dumps({
    "paid": float(daily["cost_usd"].sum()), "invoice": float(invoice.loc["total", "total"]),
    "of_tenant": invoice["total"].drop(["total", "(the shop)"]).to_dict(),
    "of_agent": invoice.loc["total"].drop("total").to_dict(),
    "worst": f"{worst:%Y-%m-%d}", "worst_usd": float(daily["cost_usd"].max()),
    "loops": sorted(loops["agent_name"]), "stopped": len(stopped), "suggested": float(suggested), "dearest_usd": suggested.max,
    "refused": int(agentroute.cost(by="error_type").set_index("error_type").loc["ErrorModelRateLimit", "errors"]),
    "prompts": both[["judged", "helpful"]].to_dict("index"),
    "saved": float(history["cost_saved_usd"].sum()), "filled": len(filled), "filled_usd": float(filled["cost_usd"].sum()),
    "tools": tools["failed"].mul(tools["calls"]).round().astype(int).to_dict(),
    "rows": len(agentroute.runs()), "exported": pl.scan_parquet("month-parquet/runs.parquet").select(pl.len()).collect().item(),
}))
"""


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """The executed notebook (`document`), what stood in its variables (`found`), and the models' own book (`book`, `counts`)."""
    folder = tmp_path_factory.mktemp("analysis")
    made_by_hand = shutil.ignore_patterns("*.db*", "month-parquet", "month.json")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=made_by_hand)
    notebook = folder / "notebooks" / "02_cost_analysis.ipynb"
    document = nbformat.read(notebook, as_version=4)
    document.cells.append(nbformat.v4.new_code_cell(FOUND))
    nbformat.write(document, notebook)
    command = [sys.executable, "notebooks/run.py", str(notebook), "--to", "build"]
    environment = {**kernel_environment(folder), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    document = nbformat.read(folder / "build" / notebook.name, as_version=4)
    book = json.loads((notebook.parent / "month.json").read_text())
    calls = [dict(zip(book["columns"], row, strict=True)) for row in book["calls"]]
    found = json.loads(document.cells[-1].outputs[0].text)
    return SimpleNamespace(document=document, found=found, calls=calls, counts=book["counts"], saved=float(book["saved_usd"]))


def charged(calls, by):
    """USD by a column of the book."""
    sums = Counter()
    for call in calls:
        sums[call[by]] += float(call["cost_usd"])
    return dict(sums)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestCostAnalysis:
    def test_the_month_has_fifty_thousand_runs_and_each_is_exported(self, analysis):
        assert analysis.found["rows"] == analysis.found["exported"] == 50_000

    def test_every_cent_is_in_the_days_and_on_the_invoice(self, analysis):
        paid = sum(charged(analysis.calls, "day").values())
        assert analysis.found["paid"] == pytest.approx(paid, abs=1e-6)
        assert analysis.found["invoice"] == pytest.approx(paid, abs=1e-6)
        assert analysis.found["of_agent"] == pytest.approx(charged(analysis.calls, "agent"), abs=1e-6)
        of_tenant = charged(analysis.calls, "tenant")
        del of_tenant[""]
        assert analysis.found["of_tenant"] == pytest.approx(of_tenant, abs=1e-6)

    def test_the_bad_day_and_its_loops_are_found(self, analysis):
        of_day = charged(analysis.calls, "day")
        assert analysis.found["worst"] == max(of_day, key=of_day.get) == "2026-10-13"
        assert analysis.found["worst_usd"] == pytest.approx(of_day["2026-10-13"], abs=1e-6)
        assert analysis.found["loops"] == ["research"] * analysis.counts["run: research ErrorBudget"]
        refused = [count for name, count in analysis.counts.items() if "ErrorModelRateLimit" in name]
        assert analysis.found["refused"] == sum(refused) > 0

    def test_the_suggested_limit_stops_the_loops_and_nothing_else(self, analysis):
        assert analysis.found["stopped"] == analysis.counts["run: research ErrorBudget"] > 0
        assert 0 < analysis.found["suggested"] < analysis.found["dearest_usd"] / 2

    def test_the_prompts_are_judged_as_the_customers_did(self, analysis):
        helpful, others = analysis.counts["score: v2 helpful"], analysis.counts["score: v2 not"]
        assert analysis.found["prompts"]["v2"] == pytest.approx({"judged": helpful + others, "helpful": helpful / (helpful + others)})

    def test_savings_and_unknown_costs_are_those_of_the_models(self, analysis):
        unknown = [call for call in analysis.calls if call["unknown_cost_calls"]]
        usd = sum(0.14 * call["input_tokens"] + 0.40 * call["output_tokens"] for call in unknown) / 1e6
        assert analysis.found["saved"] == pytest.approx(analysis.saved, abs=1e-6)
        assert analysis.found["filled"] == sum(call["unknown_cost_calls"] for call in unknown) > 0
        assert analysis.found["filled_usd"] == pytest.approx(usd, abs=1e-6)

    def test_failed_tool_calls_are_those_the_tools_have_counted(self, analysis):
        failed = {tool: count for tool, count in analysis.found["tools"].items() if count}
        assert {f"tool error: {tool}": count for tool, count in failed.items()}.items() <= analysis.counts.items()
        assert len(failed) == sum(name.startswith("tool error: ") for name in analysis.counts)

    def test_no_cell_warns_and_no_output_is_huge(self, analysis):
        outputs = [output for cell in analysis.document.cells for output in cell.get("outputs", [])]
        assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
        assert max(len(json.dumps(output)) for output in outputs) < 1_000_000


def test_notebooks_are_kept_without_outputs():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in cells), notebook.name
