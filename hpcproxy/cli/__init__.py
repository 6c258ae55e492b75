"""What is typed: the tasks of a user, of an admin and of the lab, and how they speak."""
