"""What a classifier is worth: report per class, calibration, intervals."""
