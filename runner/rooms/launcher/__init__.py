"""Starts containers. TRUSTED: of what runs unattended the only holder of the engine's socket.

It parses nothing an untrusted room wrote.
"""
