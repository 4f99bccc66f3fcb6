"""Agent room: whoever proposes edits of train.py. UNTRUSTED; has no network, no key and one writable file."""
