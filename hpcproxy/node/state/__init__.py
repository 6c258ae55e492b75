"""What the agent was told and what it leaves: settings, rules, state directory, status, logs."""
