"""An admin's verbs: the inventory, slurm.conf, many hosts."""
