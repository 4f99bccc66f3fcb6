"""What every command prints with --json: closed models, published as docs/schemas/."""
