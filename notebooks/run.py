"""Runs a notebook from top to bottom in a real kernel, keeps it with its outputs and as a page, and says what it cost.

    python notebooks/run.py notebooks/01_quickstart.ipynb --to build
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path


def execute(notebook: Path, to: Path) -> tuple[Path, Path, float]:
    """The executed notebook, its HTML page, and the seconds it took. A cell that fails ends the program."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    document = nbformat.read(notebook, as_version=4)
    cells = [index for index, cell in enumerate(document.cells) if cell.cell_type == "code"]
    began = time.monotonic()

    def progress(cell: dict, cell_index: int) -> None:
        first = next((line for line in cell["source"].splitlines() if line.strip()), "")
        print(f"  [{cells.index(cell_index) + 1}/{len(cells)}] {time.monotonic() - began:5.1f} s  {first[:90]}", flush=True)

    client = NotebookClient(
        document, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}, on_cell_execute=progress,
        extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    executed, page = to / notebook.name, to / f"{notebook.stem}.html"
    to.mkdir(parents=True, exist_ok=True)
    try:
        client.execute()
    except CellExecutionError as error:
        nbformat.write(document, executed)
        sys.exit(f"{notebook} failed; what ran until then is in {executed}\n{error.ename}: {error.evalue}")
    nbformat.write(document, executed)
    html, _ = HTMLExporter().from_notebook_node(document)
    page.write_text(html, encoding="utf-8")
    return executed, page, time.monotonic() - began


def report(store: Path) -> str:
    """The answers, the tool calls, the turns and the cost of the runs in a store, as text."""
    import agentroute

    runs, turns, calls = agentroute.runs(store), agentroute.turns(store), agentroute.tool_calls(store)
    lines = []
    for run in runs.itertuples():
        lines += ["", f"{run.agent_name} ({run.request_model}): {run.prompt_text}"]
        for call in calls[calls["run_id"] == run.run_id].itertuples():
            lines.append(f"  {call.tool_name} {call.arguments_text} → {call.result_text}")
        lines.append(f"  {run.output_text}")
    columns = ["turn_index", "finish_reason", "input_tokens", "output_tokens", "cost_usd", "duration_s"]
    turns = turns.merge(runs[["run_id", "agent_name"]], on="run_id")
    lines += ["", "Turns", turns[["agent_name", *columns]].round(3).to_string(index=False)]
    cost = runs.groupby("request_model").agg(
        runs=("run_id", "size"),
        turns=("n_turns", "sum"),
        tool_calls=("n_tool_calls", "sum"),
        input_tokens=("input_tokens", "sum"),
        output_tokens=("output_tokens", "sum"),
        cost_usd=("cost_usd", "sum"),
        seconds=("duration_s", "sum"),
    )
    return "\n".join([*lines, "", "Cost", cost.round(3).to_string()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--to", type=Path, default=Path("build"), help="where the results go (default: build)")
    options = parser.parse_args()
    if not options.notebook.is_file():
        parser.error(f"there is no notebook {options.notebook}")
    to = options.to.resolve()
    to.mkdir(parents=True, exist_ok=True)
    store = to / f"{options.notebook.stem}.db"
    for old in to.glob(f"{store.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    os.environ["AGENTROUTE_RUNS"] = str(store)  # this demonstration is kept apart from the user's own history
    print(f"Running {options.notebook} …", flush=True)
    executed, page, seconds = execute(options.notebook.resolve(), to)
    if store.exists():
        print(report(store))
    print(f"\nDone in {seconds:.0f} s.\n  notebook  {executed}\n  page      {page}")
    if store.exists():
        print(f"  history   {store}")


if __name__ == "__main__":
    main()
