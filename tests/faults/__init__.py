"""Runs with planted faults, and what the doctor says of them.

tasks      small tasks that a healthy run learns in seconds
envs       environments with a fault in them
plants     the faults: a change of flags, of the environment, or of our own code
table      trains each, and writes the table of faults and verdicts
"""
