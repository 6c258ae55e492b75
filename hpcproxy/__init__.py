"""Give every Slurm job a private tunnel out of compute nodes that have no internet."""

__version__ = "0.1.0"
