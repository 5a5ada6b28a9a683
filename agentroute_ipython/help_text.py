"""What `%%agent?` and `%agent help` say."""

from __future__ import annotations

from .arguments import FILTERS, option_lines

__all__ = ["HELP"]

HELP = f"""Run an agent on the text of the cell.

    %%agent NAME [options]          the cell below is the prompt
    Where is order 4821?

    %%agent NAME [options]          text above a line --- is the agent's instructions and (re)defines NAME,
    You are a support agent.        text below it is the prompt
    ---
    Where is order 4821?

    %agent NAME [options] PROMPT    a short prompt on one line
    %agent list                     the agents of this notebook
    %agent show NAME                the settings of one
    %agent show last                the card of the last run, drawn again, also while it goes on
    %agent edit NAME                a form for its settings, which writes them into its cell
    %agent stop [NAME]              ends runs in the background
    %agent diff [RUN_ID RUN_ID]     what changed between the last two runs, or these: prompt, tools, model, answer
    %agent budget [USD | off]       what the runs of this kernel may spend together
    %agent runs [N] [filters]       the last runs of the run history
    %agent cost [7d] [week] [agent] what the runs of the last 30 days (or 7d, all) cost, by day and model (or week, month, agent)
    %agent doctor [--offline]       what works here and what does not: packages, keys, approval, settings and where they come from

NAME is a variable that holds an Agent, an agent that an earlier cell defined, or, with --model or a default
model (%config AgentMagics.model = "MODEL"), a new one. Options of an agent that exists already count for this
run only, unless the cell has a --- and so defines it anew: what its first line does not say stays as it was.
A line \\--- stands for a line --- of the text itself.

Several answers are compared side by side: %%agent NAME,NAME, --models A,B and -n 3 ask each agent with each model
so often, all at once.

Options:
{option_lines()}

Filters of %agent runs and %agent cost:
{option_lines(FILTERS)}

{{name}} is filled from the notebook's variables, once; {{{{name}}}} gives a literal {{name}}; other braces stay.
A restarted notebook replays the answers that are paid for, also those of other notebooks that asked the same; a cell
that is run again in the same kernel asks again. (Frontends that do not tell cells apart, such as nbclient, papermill and
consoles, replay the n-th run of a text; --fresh asks in any case.) Equal prompts asked at the same time share one answer.
%config AgentMagics.replay = "on", "off", "only" or "fresh" says otherwise, for the notebook.

`_agent` is the Result of the last %%agent or %agent run, also the partial one of a run that failed or was stopped;
of several that are compared, their Results, one after the other, with a DataFrame of them: `_agent.frame`.

In Python: agentroute_ipython.history() is the run history as a table to sort, filter and select from, usage() what this
notebook spends, diff(run, other) what changed. Tab completes agents, words, options, models (with price and context), tools
and types. Settings: %config AgentMagics, or [tool.agentroute] in the project's pyproject.toml.

Examples:

    %%agent support --model anthropic/claude-sonnet-4 --tools order_status,refund --max-cost 0.25
    You are a concise, accurate support agent.
    ---
    Where is order 4821?

    %%agent support --models openai/gpt-4.1-mini,anthropic/claude-sonnet-4 -n 2
    Where is order 4821?

    %%agent support --background --as report
    Write the report on last week's orders.
"""
