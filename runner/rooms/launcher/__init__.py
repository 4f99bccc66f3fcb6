"""Starts containers. TRUSTED, the only holder of the engine's socket; reads nothing an untrusted room wrote."""
