"""The user's settings: read and checked; single keys changed."""
