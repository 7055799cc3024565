"""CTranslate2 on the CPU. Arguments: DIRECTORY THREADS COMPUTE_TYPE."""

import sys

import ctranslate2
import numpy
from protocol import Engine, serve


class CTranslate2(Engine):
    """It is given lengths and removes the padding itself."""

    def __init__(self, model, threads, compute_type):
        self.encoder = ctranslate2.Encoder(model, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads)
        if self.encoder.compute_type != compute_type:
            raise ValueError(f"asked for {compute_type}, got {self.encoder.compute_type}")

    def prepare(self, batch, fixed):
        # The arrays are kept: a StorageView only refers to them.
        arrays = batch["input_ids"].astype(numpy.int32), batch["attention_mask"].sum(1).astype(numpy.int32)
        return arrays, *map(ctranslate2.StorageView.from_array, arrays)

    def run(self, inputs):
        _, ids, lengths = inputs
        return self.encoder.forward_batch(ids, lengths)

    def hidden_states(self, outputs):
        return numpy.array(outputs.last_hidden_state)


serve(lambda model, threads: (f"ctranslate2 {ctranslate2.__version__}", CTranslate2(model, threads, sys.argv[3])))
