"""Where the jobs of a queue run."""
