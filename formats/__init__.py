"""Files that can be trusted: parameters, symbols, checkpoints, records, PyTorch and ONNX files, all checked before they
are used.
"""
