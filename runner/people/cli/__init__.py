"""The `glovebox` command. TRUSTED."""
