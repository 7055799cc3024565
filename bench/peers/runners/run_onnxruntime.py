"""ONNX Runtime on the CPU. Arguments: MODEL.onnx THREADS."""

import onnxruntime
from protocol import Engine, serve


class OnnxRuntime(Engine):
    def __init__(self, model, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Its threads wait for work by spinning, which is theirs to choose while a call runs, and would disturb the others after it.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]

    def prepare(self, batch, fixed):
        return {name: batch[name] for name in self.names}

    def run(self, inputs):
        return self.session.run(None, inputs)

    def hidden_states(self, outputs):
        return outputs[0]


serve(lambda model, threads: (f"onnxruntime {onnxruntime.__version__}", OnnxRuntime(model, threads)))
