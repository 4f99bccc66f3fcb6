"""Host side of the bench: runner, launcher, ledger and command line. TRUSTED."""
