"""What OpenSSH defines and only it reads: options, configuration, host keys, what its log means."""
