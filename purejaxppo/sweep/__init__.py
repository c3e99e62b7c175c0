"""Search over hyperparameters: Optuna decides, any number of processes train.

space    the parameters of the search, from the command line
plan     what all workers of a study agree on
outcome  what a trial leaves, as data
training trains one trial, and compiles each program once
locks    files that show which workers are alive
study    the queue of trials, in Optuna's journal or a database
worker   takes trials from the queue, until there are enough
page     the report of a study

Only `study` and `worker` import Optuna, which is an extra (`purejaxppo[sweep]`).
"""
