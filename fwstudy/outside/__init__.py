"""Detectors that were not trained here: run or read, and measured as the study's own are."""
