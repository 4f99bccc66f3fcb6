"""Live probes of every wall, each with a control that shows the probe can tell. TRUSTED; runs no agent's code."""
