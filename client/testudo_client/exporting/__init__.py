"""An owner's version in use as files that need no Testudo: for torch, for ONNX, and in eight bits where that pays."""
