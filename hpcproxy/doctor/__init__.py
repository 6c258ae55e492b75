"""`hpcproxy doctor`: what is wrong with this account's way out, and the one command that mends it."""
