"""`python -m runner` is `glovebox`."""

from runner.cli import main

main()
