"""`python -m runner` is `glovebox`."""

from runner.people.cli.main import main

main()
