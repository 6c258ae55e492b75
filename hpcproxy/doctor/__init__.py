"""`hpcproxy doctor`: what is wrong with this account's tunnel, and the one command that mends it."""
