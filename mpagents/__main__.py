"""`python -m mpagents`."""

from mpagents.cli import main

main()
