"""A model that uses our operators, as ONNX Runtime runs it; errors are raised and nothing is printed."""

import onnxruntime as ort

from gossamer import native


def session(model, threads=1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(native.path()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
