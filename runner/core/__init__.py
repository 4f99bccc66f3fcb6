"""What the rooms share. TRUSTED, without a power of its own: no engine, no key, no network."""
