"""Measurements: methods, comparisons, prompt variants, LLMs without a student, latency and cost."""
