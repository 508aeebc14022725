"""Scores, intervals over groups of people, paired tests, transfer; `metrics` defines, `comparison` compares."""
