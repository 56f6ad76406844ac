"""What computes a saved student: PyTorch, ONNX Runtime or OpenVINO; and the export for the latter two."""
