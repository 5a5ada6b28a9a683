"""`python -m agentroute` is the command `agentroute`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="agentroute")
