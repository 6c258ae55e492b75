"""How the agent begins, is kept alive, and ends with its job."""
