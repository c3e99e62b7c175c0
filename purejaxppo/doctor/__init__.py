"""The doctor: reads the figures of a run and says in words what is wrong with it.

log        the figures of one seed of a run, as arrays
readers    run folders, CSV files and TensorBoard events -> logs
finding    what a rule found, and its text
rules      one function per fault
diagnosis  all rules on a log

Everything here needs NumPy alone, so that a diagnosis takes no time to start.
"""
