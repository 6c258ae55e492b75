"""Sockets, processes and time; who is at the other end, by the kernel's word."""
