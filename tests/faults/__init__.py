"""Runs with planted faults, and what the doctor says of them.

tasks      small tasks that a healthy run learns in seconds
lander     a harder task than those of gymnax
envs       environments with a fault in them
plants     the faults: a change of flags, of the environment, or of our own code
graded     settings ever further from their defaults
table      trains each, and formats the table of faults and verdicts
measured   what the doctor costs, and what it says of Stable-Baselines3 (sb3_run)
"""
