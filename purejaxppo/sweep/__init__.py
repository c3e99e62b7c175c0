"""Search over hyperparameters: Optuna decides, any number of processes train.

space    the parameters of the search, from the command line
plan     what all workers of a study agree on
command  the command line, and the plan that it asks for
outcome  what a trial leaves, as data
training trains one trial, and compiles each program once
locks    files that show which workers are alive
storage  where a study is: Optuna's journal in a folder, or a database
study    the queue of its trials
worker   takes trials from the queue, until there are enough
page     the report of a study

Only `storage`, `study` and `worker` import Optuna, an extra (`purejaxppo[sweep]`).
"""
