"""Graylift: gray releases of models, from an ONNX file to all of the traffic, or back in seconds."""
