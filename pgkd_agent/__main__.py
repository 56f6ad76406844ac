"""`python -m pgkd_agent` is `pgkd`."""

from pgkd_agent.cli import main

main()
