"""The command `pgkd`: parse, build, call, print. Everything heavy is imported inside the commands."""

from pgkd_agent.cli.main import app, main

__all__ = ["app", "main"]
