"""The signs of faults: functions of a log and limits, by what they look at.

Each returns the `Evidence` of one fault, or None. `rules` has the limits.
"""
