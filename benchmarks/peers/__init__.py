"""Other PPO stacks, and ours, each a worker in a process and environment of its own."""
