"""The one door to a model: log, budget, pace, retry, prices, estimates."""
