"""Headrace: scores Kafka streams with ONNX models on Ray, exactly once."""
