"""The whole GPU path in under ten minutes on one card: what no machine without a GPU can show.

    python -m bench.gpu_acceptance --artifact DIR [--gpu UUID] [--upstream train.py] [--steps a,b] [--json]

Rooms run as plain processes with the environment, the limits and (where libseccomp is) the system-call filter of
production, so no engine is needed. One line a step and figure, with its limit; the last line is one JSON object; exit
code 1 if anything failed.
"""
