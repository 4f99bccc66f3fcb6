"""Broker room: holds the API key and is the only one with a network. TRUSTED, serves the untrusted agent."""
