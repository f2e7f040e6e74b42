"""Trained models as files that other programs run: StableHLO, ONNX."""
