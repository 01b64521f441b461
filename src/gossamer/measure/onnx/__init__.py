"""Counting an ONNX graph node by node: `graph` records it, `ops` and its neighbours know what each operator costs."""
