"""Environments that come with purejaxppo: one package each, named in the registry."""
