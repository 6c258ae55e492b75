"""A researcher's verbs: one account on this machine, its job scripts, its tunnels."""
