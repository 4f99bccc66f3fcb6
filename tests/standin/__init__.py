"""A real HTTP server that stands in for the Messages API: streams, tools, bills, and every way to fail."""
