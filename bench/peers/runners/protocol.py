"""The runner's side of the protocol, for the engines that have a Python package.

Requests and answers are JSON, one object a line, on standard input and output:

    {"batches": [[[id, …], …], …], "fixed": true, "warm_up": 1, "repeats": 3}  ->  {"seconds": [s, …]}
    {"batches": …, "fixed": false, "hidden_states": true}                      ->  {"embeddings": [[x, …], …]}

`seconds` has, for each repeat, the sum over the batches. The clock runs from token ids in the engine's own input form, padded,
to last hidden states of every token in memory. Padding, conversion of the input form and pooling are outside of the clock, for
every engine. `embeddings` are the mean over a text's tokens, of unit length.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy

import workloads


class Engine:
    """What a runner implements."""

    def prepare(self, batch, fixed):
        """The engine's input form of `pad`'s arrays. `fixed`: this shape will come often, compile for it."""
        raise NotImplementedError

    def run(self, inputs):
        """The timed part."""
        raise NotImplementedError

    def hidden_states(self, outputs):
        """What `run` returned as a numpy array (sequences, tokens, hidden size)."""
        return numpy.asarray(outputs)


def pooled(states, mask):
    """Mean over tokens, normalized: (sequences, hidden size)."""
    weights = mask[..., None].astype(numpy.float64)
    sums = (states.astype(numpy.float64) * weights).sum(1)
    return sums / numpy.linalg.norm(sums, axis=1, keepdims=True)


def answer(engine, request):
    padded = [workloads.pad(batch) for batch in request["batches"]]
    inputs = [engine.prepare(batch, request["fixed"]) for batch in padded]
    if request.get("hidden_states"):
        states = [engine.hidden_states(engine.run(one)).copy() for one in inputs]
        rows = [row for state, batch in zip(states, padded) for row in pooled(state, batch["attention_mask"]).tolist()]
        return {"embeddings": rows}
    seconds = []
    for repeat in range(request["warm_up"] + request["repeats"]):
        total = 0.0
        for one in inputs:
            start = time.perf_counter()
            outputs = engine.run(one)
            total += time.perf_counter() - start
            del outputs
        if repeat >= request["warm_up"]:
            seconds.append(total)
    return {"seconds": seconds}


def serve(load):
    """Loads with `load(model, threads)` -> (version, Engine) and answers until standard input ends."""
    # Libraries print to standard output; only answers may go there.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model, threads = sys.argv[1], int(sys.argv[2])
    version, engine = load(model, threads)
    print(json.dumps({"ready": version}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line))), file=out, flush=True)
