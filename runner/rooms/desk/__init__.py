"""The desk: decides, runs experiments, answers the agent. TRUSTED; no engine, no key, no network, no page."""
