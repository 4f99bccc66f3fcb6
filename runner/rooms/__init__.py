"""The trusted rooms: one power each, a process each, and none imports another."""
