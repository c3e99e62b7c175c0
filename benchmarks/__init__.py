"""Measurements, each a script that writes a JSON file under benchmarks/results/."""
