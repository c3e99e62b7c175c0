"""What policies learn, over several seeds (see `__main__`)."""
