"""A pickle in place of the weights."""

# expect: rejected weights_format

import pickle

open("/out/graph.json", "w").write('{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[],"output":0}')
open("/out/weights.safetensors", "wb").write(pickle.dumps(print))
