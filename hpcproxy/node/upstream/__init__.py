"""How a request gets out: one ssh that is kept up, and channels through it."""
