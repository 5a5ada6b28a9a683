import logging

from agentroute import (
    Agent,
    ErrorAgent,
    ErrorBudget,
    ErrorMaxTurns,
    HistorySlidingWindow,
    MemorySQLite,
)

log = logging.getLogger("agent")

agent = Agent(
    name="support",
    model="anthropic/claude-sonnet-4",  # pinned slug
    instructions="You are a concise, accurate support agent.",
    max_cost=0.50,  # USD ceiling per run
    max_turns=20,  # loop ceiling
    retries=2,  # corrective passes
    memory=MemorySQLite("/var/lib/agentroute/memory.db"),
    history=HistorySlidingWindow(window_size=30),
)
# API key comes from AGENTROUTE_API_KEY in the environment.


def handle(prompt: str) -> str:
    try:
        result = agent.run(prompt)
    except ErrorBudget as exc:
        log.warning("budget_exceeded", extra={"spent": exc.spent, "limit": exc.limit})
        return "That request was too expensive to complete. Please narrow it."
    except ErrorMaxTurns as exc:
        log.warning("turns_exceeded", extra={"turn": exc.turn, "limit": exc.limit})
        return "That request took too many steps. Please simplify it."
    except ErrorAgent as exc:
        log.error("agent_failed", extra={"error": str(exc)})
        return "Something went wrong. Please try again."

    u = result.usage
    log.info(
        "agent_run",
        extra={
            "input_tokens": u.input_tokens,
            "output_tokens": u.output_tokens,
            "cost_usd": u.total_cost_usd,
            "model_calls": u.model_calls,
        },
    )
    return str(result)
